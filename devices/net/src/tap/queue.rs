//! One queue of a TAP interface.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use super::{Port, Shared, ioctl};
use crate::counted::{Counted, Uncounted};
use crate::endpoint::Endpoint;
use crate::vectored::{Kind, Vectors};
use crate::{Frame, MAX_FRAME, Pieces, Queue, ReceiveError, Received, SendError, VnetHeader};

pub(super) struct TapQueue {
    shared: Arc<Shared>,
    index: usize,
    vectors: Vectors,
}

impl TapQueue {
    pub(super) fn open(shared: &Arc<Shared>, index: usize) -> io::Result<Box<dyn Queue>> {
        let in_use = shared.lock();
        let claim = shared.claims.claim(index)?;
        let port = &shared.ports[index];
        if shared.is_attached() {
            let attached = if index == 0 { Ok(()) } else { ioctl::set_queue(&port.fd, true) };
            match attached {
                Err(error) if is_gone(&error) => shared.lost(),
                Err(error) => return Err(error),
                Ok(()) => port.readiness.watch(port.fd.as_raw_fd())?,
            }
        }
        drop(in_use);
        let queue = Self { shared: Arc::clone(shared), index, vectors: Vectors::default() };
        Ok(Counted::boxed(queue, claim))
    }

    fn port(&self) -> &Port {
        &self.shared.ports[self.index]
    }
}

impl Uncounted for TapQueue {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        frame.check(self.shared.offloads, MAX_FRAME)?;
        if !self.shared.is_attached() {
            return Err(SendError::LinkDown);
        }
        let header = frame.wire_header().to_bytes();
        let port = &self.shared.ports[self.index];
        let result = self.vectors.write(port.fd(), Kind::Device, &header, frame);
        let result = self.sent(result);
        // The kernel answers EIO while the interface is not up. No notice may have been read yet.
        let was_up = self.shared.link.is_up();
        match result {
            Ok(_) => {
                if !was_up {
                    self.shared.refresh();
                }
                Ok(())
            }
            Err(SendError::Os(libc::EIO)) => {
                if was_up {
                    self.shared.refresh();
                }
                let is_up = self.shared.link.is_up();
                Err(if is_up { SendError::Os(libc::EIO) } else { SendError::LinkDown })
            }
            Err(error) => Err(error),
        }
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        if !self.shared.is_attached() {
            self.shared.lost();
            return Err(ReceiveError::LinkDown);
        }
        let mut header = [0; VnetHeader::LENGTH];
        // A frame that fills this byte was longer than the space.
        let mut spare = [0];
        let port = &self.shared.ports[self.index];
        let result = self.vectors.read(port.fd(), Kind::Device, &mut header, space, &mut spare);
        let Some(read) = self.received(result)? else { return Ok(None) };
        match read.checked_sub(header.len()) {
            None => Err(ReceiveError::Os(libc::EIO)),
            Some(length) if length > space.len() => Err(ReceiveError::TooLong),
            Some(length) => {
                let header = VnetHeader::from_bytes(&header);
                Ok(Some(Received { offset: 0, length, header }))
            }
        }
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.port().readiness.data())
    }

    fn space_event(&self) -> Option<RawFd> {
        Some(self.port().readiness.space())
    }
}

impl Endpoint for TapQueue {
    fn is_gone(&self, error: &io::Error) -> bool {
        is_gone(error)
    }

    fn lost(&self) {
        self.shared.lost();
    }
}

impl Drop for TapQueue {
    fn drop(&mut self) {
        let shared = Arc::clone(&self.shared);
        let _in_use = shared.lock();
        let port = self.port();
        port.readiness.unwatch(port.fd.as_raw_fd());
        if self.index != 0 {
            // It fails when the interface is gone.
            let _ = ioctl::set_queue(&port.fd, false);
        }
    }
}

/// Returns whether the interface was deleted.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADFD | libc::ENODEV))
}
