//! The machine of this process.

use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError, Weak};

use synthvm_web_console::{Action, Description, Machine};

use super::{description, request};
use crate::control::{ControlTarget, StreamKind, perform};

/// The machine of this process, as the browser console sees it.
pub struct LocalMachine {
    name: String,
    target: Weak<dyn ControlTarget>,
    /// Actions run one at a time, as those of the control socket: some wait for files.
    acting: Mutex<()>,
}

impl LocalMachine {
    /// Returns a machine of this name.
    pub fn new(name: String, target: Weak<dyn ControlTarget>) -> Self {
        LocalMachine { name, target, acting: Mutex::default() }
    }

    fn open(&self, kind: StreamKind) -> Result<UnixStream, String> {
        let target = self.target.upgrade().ok_or(ENDED)?;
        target.check_stream(kind)?;
        let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
        target.open_stream(kind, theirs)?;
        Ok(ours)
    }
}

const ENDED: &str = "the machine has ended";

impl Machine for LocalMachine {
    fn describe(&self) -> Result<Description, String> {
        let target = self.target.upgrade().ok_or(ENDED)?;
        Ok(description(&self.name, &target.inspect()))
    }

    fn perform(&self, action: &Action) -> Result<(), String> {
        let target = self.target.upgrade().ok_or(ENDED)?;
        let _one = self.acting.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = perform(request(action), &*target);
        match reply.ok {
            true => Ok(()),
            false => Err(reply.error.unwrap_or_else(|| "refused".to_owned())),
        }
    }

    fn open_screen(&self) -> Result<UnixStream, String> {
        self.open(StreamKind::Screen)
    }

    fn open_serial(&self) -> Result<UnixStream, String> {
        self.open(StreamKind::Serial(1))
    }
}
