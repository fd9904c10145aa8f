//! The handle of the server.

use std::io;
use std::sync::Arc;
use std::thread;

use synthvm_input::Input;
use synthvm_video::Screen;

use crate::counters::ServerReport;
use crate::event_loop::{EventLoop, Setup};
use crate::mailbox::{Command, Mailbox};
use crate::options::DisplayOptions;
use crate::security::Security;
use crate::socket::{Listener, ViewerSocket};

/// A display server: one screen for several viewers. Clones are handles to the same server. Its
/// thread ends, and viewers are disconnected, when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct DisplayServer(Arc<Handle>);

#[derive(Debug)]
struct Handle(Arc<Mailbox>);

impl DisplayServer {
    /// Starts the server of a screen. It has no viewers yet.
    ///
    /// # Errors
    /// The host is out of file descriptors or threads.
    pub fn new(screen: Screen, input: Input, options: DisplayOptions) -> io::Result<Self> {
        let mailbox = Arc::new(Mailbox::new()?);
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
