//! Exclusive use of the queues of a backend.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The open queues of a backend.
#[derive(Clone, Debug)]
pub(crate) struct Claims(Arc<[AtomicBool]>);

/// The right to use one queue; dropping it gives the right back.
#[derive(Debug)]
pub(crate) struct Claim {
    claims: Claims,
    index: usize,
}

impl Claims {
    /// Returns `count` queues, none of them open.
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count).map(|_| AtomicBool::new(false)).collect())
    }

    /// Returns the number of queues.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Opens queue `index`.
    ///
    /// # Errors
    /// `InvalidInput`: there is no such queue. `ResourceBusy`: it is open.
    pub(crate) fn claim(&self, index: usize) -> io::Result<Claim> {
        let open = self.0.get(index).ok_or(io::ErrorKind::InvalidInput)?;
        if open.swap(true, Ordering::AcqRel) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        Ok(Claim { claims: self.clone(), index })
    }

    /// Returns whether queue `index` is open.
    pub(crate) fn is_open(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(|open| open.load(Ordering::Acquire))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(open) = self.claims.0.get(self.index) {
            open.store(false, Ordering::Release);
        }
    }
}
