//! The thread that brings links up again: a TAP interface that was deleted and made again, a passt
//! that has ended, a machine at the other end of a socket.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use synthvm_net::{Attachment, Backend, LinkState};

/// Time between two attempts on a link that is down.
const PERIOD: Duration = Duration::from_secs(1);

/// The most periods between two attempts on a link that does not stay up.
const MAX_PERIODS: u32 = 64;

/// The thread. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Reconnector {
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reconnector {
    /// Starts the thread for the cards' backends.
    ///
    /// # Errors
    /// The system has no thread.
    pub(super) fn start(cards: Vec<Arc<Attachment>>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let mut attempts: Vec<_> = cards.into_iter().map(Attempts::new).collect();
        let thread = thread::Builder::new().name("net-link".into()).spawn(move || {
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                attempts.iter_mut().for_each(Attempts::period);
            }
        })?;
        Ok(Reconnector { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Reconnector {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread does not panic; its result would be no use here.
            let _ = thread.join();
        }
    }
}

/// The attempts on one link.
pub(super) struct Attempts<B> {
    backend: B,
    /// Times that the link came up since it was last seen up at a period's end.
    short_lived: u32,
    /// Periods until the next attempt.
    wait: u32,
}

impl<B: Link> Attempts<B> {
    pub(super) fn new(backend: B) -> Self {
        Attempts { backend, short_lived: 0, wait: 0 }
    }

    /// Makes an attempt if one is due. Call this once each period.
    pub(super) fn period(&mut self) {
        if self.backend.is_up() {
            (self.short_lived, self.wait) = (0, 0);
        } else if self.wait != 0 {
            self.wait -= 1;
        } else if self.backend.reconnect() {
            let periods = 1_u32.checked_shl(self.short_lived).unwrap_or(MAX_PERIODS);
            self.wait = periods.min(MAX_PERIODS) - 1;
            self.short_lived = self.short_lived.saturating_add(1);
        }
    }
}

/// A link that can come back.
pub(super) trait Link {
    /// Returns whether the backend has the link up.
    fn is_up(&self) -> bool;

    /// Tries to bring the link up. Returns whether it is up.
    fn reconnect(&self) -> bool;
}

impl Link for Arc<Attachment> {
    fn is_up(&self) -> bool {
        self.backend_link() == LinkState::Up
    }

    fn reconnect(&self) -> bool {
        let result = Backend::reconnect(&**self);
        if let Err(error) = &result {
            tracing::debug!(%error, "a network link stays down");
        }
        result.is_ok()
    }
}
