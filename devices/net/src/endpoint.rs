//! The results of system calls on a descriptor whose far end may go away.

use std::io;

use crate::{ReceiveError, SendError};

/// The descriptor of a queue, as far as results of its calls concern the link.
pub(crate) trait Endpoint {
    /// Returns whether an error means that the far end is gone.
    fn is_gone(&self, error: &io::Error) -> bool;

    /// Notes that the far end is gone.
    fn lost(&self);

    /// Judges the result of a write.
    fn sent(&self, result: io::Result<usize>) -> Result<usize, SendError> {
        result.map_err(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                SendError::Full
            } else if self.is_gone(&error) {
                self.lost();
                SendError::LinkDown
            } else {
                SendError::Os(number(&error))
            }
        })
    }

    /// Judges the result of a read. `None`: nothing is there.
    fn received(&self, result: io::Result<usize>) -> Result<Option<usize>, ReceiveError> {
        match result {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if self.is_gone(&error) => {
                self.lost();
                Err(ReceiveError::LinkDown)
            }
            Err(error) => Err(ReceiveError::Os(number(&error))),
        }
    }
}

fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
