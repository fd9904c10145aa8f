//! The limit on the mappings that all contiguous mappings of the process use together.

use std::sync::atomic::{AtomicUsize, Ordering};

use vmbus_protocol::limits::MAX_STITCHED_MAPPINGS;

/// The number of mappings in use.
#[derive(Debug)]
pub(super) struct Pool(AtomicUsize);

/// A share of [`MAX_STITCHED_MAPPINGS`], which is returned on drop except for leaked mappings.
#[derive(Debug)]
pub(super) struct Share<'a> {
    pool: &'a Pool,
    mappings: usize,
}

impl Pool {
    pub(super) const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    pub(super) fn take(&self, mappings: usize) -> Option<Share<'_>> {
        let more =
            |used: usize| used.checked_add(mappings).filter(|&sum| sum <= MAX_STITCHED_MAPPINGS);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Share { pool: self, mappings })
    }
}

impl Share<'_> {
    /// Keeps `mappings` of the share permanently, because they are leaked.
    pub(super) fn keep(&mut self, mappings: usize) {
        self.mappings = self.mappings.saturating_sub(mappings);
    }

    /// Keeps all of the share permanently.
    pub(super) fn keep_all(&mut self) {
        self.mappings = 0;
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.pool.0.fetch_sub(self.mappings, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_mappings_at_the_limit_are_given_and_one_past_it_is_not() {
        let pool = Pool::new();
        let most = pool.take(MAX_STITCHED_MAPPINGS - 2).unwrap();
        assert!(pool.take(3).is_none());
        let rest = pool.take(2).unwrap();
        assert!(pool.take(1).is_none());
        drop(rest);
        assert!(pool.take(usize::MAX).is_none());
        assert!(pool.take(2).is_some());
        drop(most);
        assert!(pool.take(MAX_STITCHED_MAPPINGS + 1).is_none());
        assert!(pool.take(MAX_STITCHED_MAPPINGS).is_some());
    }
}
