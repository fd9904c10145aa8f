//! The far end of backends that wrap another one.

use super::{Fixture, Memory, receive, receive_wait};
use crate::{Backend, Frame, Queue, Switch, SwitchPort};

/// A backend over port 0 of a switch, whose port 1 is the far end.
pub struct OverSwitch<B> {
    backend: B,
    far: Box<dyn Queue>,
}

impl<B: Backend> OverSwitch<B> {
    /// Returns the backend that `wrap` makes of the port, with its far end.
    ///
    /// # Panics
    /// The system is out of file descriptors.
    pub fn new(wrap: impl FnOnce(SwitchPort) -> B) -> Self {
        let switch = Switch::new(2).expect("a switch");
        let port = |index| switch.port(index).expect("a port");
        Self { far: port(1).queue(0).expect("a queue"), backend: wrap(port(0)) }
    }
}

impl<B: Backend> Fixture for OverSwitch<B> {
    fn backend(&self) -> &dyn Backend {
        &self.backend
    }

    fn inject(&mut self, frame: &[u8]) {
        self.far.send(&Frame::new(&Memory::odd(frame).pieces())).expect("space for a frame");
    }

    fn take(&mut self) -> Vec<u8> {
        receive_wait(&mut *self.far)
    }

    fn try_take(&mut self) -> Option<Vec<u8>> {
        receive(&mut *self.far, 66_000).expect("a frame or none")
    }
}
