//! The handle of the server.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use synthvm_input::Input;
use synthvm_video::Screen;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::counters::{Counters, ServerReport};
use crate::event_loop::{EventLoop, Setup};
use crate::security::Security;
use crate::socket::{Listener, ViewerSocket};

/// Maximum number of viewers, unless [`DisplayOptions`] has another.
pub const MAX_VIEWERS: usize = 32;

/// Options of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisplayOptions {
    /// The name of the desktop.
    pub name: String,
    /// Maximum number of viewers. The connection of one more is closed.
    pub max_viewers: usize,
    /// A viewer that has not logged in after this time is dropped.
    pub login_timeout: Duration,
    /// A viewer that takes no bytes for this time, while some wait for it, is dropped.
    pub stall_timeout: Duration,
}

impl Default for DisplayOptions {
    fn default() -> Self {
        Self {
            name: "SynthVM".to_owned(),
            max_viewers: MAX_VIEWERS,
            login_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

/// A display server: one screen for several viewers. Clones are handles to the same server. Its
/// thread ends, and viewers are disconnected, when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct DisplayServer(Arc<Handle>);

#[derive(Debug)]
struct Handle(Arc<Mailbox>);

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

impl DisplayServer {
    /// Starts the server of a screen. It has no viewers yet.
    ///
    /// # Errors
    /// The host is out of file descriptors or threads.
    pub fn new(screen: Screen, input: Input, options: DisplayOptions) -> io::Result<Self> {
        let mailbox = Arc::new(Mailbox {
            commands: Mutex::default(),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            counters: Counters::default(),
        });
        let setup = Setup { screen, input, options, mailbox: Arc::clone(&mailbox) };
        let mut event_loop = EventLoop::new(setup)?;
        thread::Builder::new().name("display-server".to_owned()).spawn(move || {
            if let Err(error) = event_loop.run() {
                tracing::error!(%error, "the display server has ended");
            }
        })?;
        Ok(Self(Arc::new(Handle(mailbox))))
    }

    /// Adds a viewer, to whom the server speaks first. Does not wait.
    pub fn add_viewer(&self, socket: impl Into<ViewerSocket>, security: Security) {
        self.send(Command::AddViewer(socket.into(), security));
    }

    /// Accepts viewers from a listening socket. Does not wait.
    pub fn listen(&self, listener: impl Into<Listener>, security: Security) {
        self.send(Command::Listen(listener.into(), security));
    }

    /// Returns the counters.
    pub fn report(&self) -> ServerReport {
        self.0.0.counters.read()
    }

    fn send(&self, command: Command) {
        self.0.0.send(command);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.send(Command::Stop);
    }
}

impl Mailbox {
    fn send(&self, command: Command) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        // A write fails only if the counter is full, and then it is readable already.
        let _ = self.event.write(1);
    }

    pub(crate) fn take(&self) -> Vec<Command> {
        let _ = self.event.read();
        std::mem::take(&mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
