//! Commands for the server's thread, and its counters.

use std::io;
use std::sync::{Mutex, PoisonError};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::counters::Counters;
use crate::security::Security;
use crate::socket::{Listener, ViewerSocket};

/// Commands for the server's thread, and its counters.
#[derive(Debug)]
pub(crate) struct Mailbox {
    commands: Mutex<Vec<Command>>,
    /// Readable while there are commands.
    pub(crate) event: EventFd,
    pub(crate) counters: Counters,
}

/// A command for the server's thread.
#[derive(Debug)]
pub(crate) enum Command {
    AddViewer(ViewerSocket, Security),
    Listen(Listener, Security),
    Stop,
}

impl Mailbox {
    /// Returns a mailbox without commands.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            commands: Mutex::default(),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            counters: Counters::default(),
        })
    }

    pub(crate) fn send(&self, command: Command) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        // A write fails only if the counter is full, and then it is readable already.
        let _ = self.event.write(1);
    }

    pub(crate) fn take(&self) -> Vec<Command> {
        let _ = self.event.read();
        std::mem::take(&mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
