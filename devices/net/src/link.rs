//! The state of a link.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Whether frames can pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// Frames pass.
    #[default]
    Up,
    /// The far end is gone. Frames are dropped.
    Down,
}

/// The state of a link and its change event.
#[derive(Debug)]
pub(crate) struct Link {
    up: AtomicBool,
    event: EventFd,
}

impl Link {
    /// Returns a link in this state, with no change pending.
    pub(crate) fn new(state: LinkState) -> io::Result<Self> {
        Ok(Self { up: AtomicBool::new(state == LinkState::Up), event: EventFd::new(EFD_NONBLOCK)? })
    }

    /// Sets the state and signals a change. Returns whether it changed.
    pub(crate) fn set(&self, state: LinkState) -> bool {
        let up = state == LinkState::Up;
        let changed = self.up.swap(up, Ordering::AcqRel) != up;
        if changed {
            // It fails only when the counter is full: the event is readable then.
            let _ = self.event.write(1);
        }
        changed
    }

    /// Returns the state, and clears the event.
    pub(crate) fn take(&self) -> LinkState {
        // It fails when the event is not readable: there is nothing to clear.
        let _ = self.event.read();
        if self.is_up() { LinkState::Up } else { LinkState::Down }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Returns the descriptor that is readable after a change.
    pub(crate) fn event(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}
