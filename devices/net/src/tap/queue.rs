//! One queue of a TAP interface.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use super::{Port, Shared, ioctl};
use crate::claim::Claim;
use crate::vectored::{Kind, Vectors};
use crate::{
    Counters, Frame, MAX_FRAME, Pieces, Queue, ReceiveError, Received, SendError, VnetHeader,
};

pub(super) struct TapQueue {
    shared: Arc<Shared>,
    index: usize,
    vectors: Vectors,
    /// The event also reports space to send.
    waits_for_space: bool,
    counters: Counters,
    _claim: Claim,
}

impl TapQueue {
    pub(super) fn open(shared: &Arc<Shared>, index: usize) -> io::Result<Self> {
        let in_use = shared.lock();
        let claim = shared.claims.claim(index)?;
        let port = &shared.ports[index];
        if shared.link.is_up() {
            let attached = if index == 0 { Ok(()) } else { ioctl::set_queue(&port.fd, true) };
            match attached {
                Err(error) if is_gone(&error) => shared.lost(),
                Err(error) => return Err(error),
                Ok(()) => port.readiness.watch(port.fd.as_raw_fd(), false)?,
            }
        }
        drop(in_use);
        Ok(Self {
            shared: Arc::clone(shared),
            index,
            vectors: Vectors::default(),
            waits_for_space: false,
            counters: Counters::default(),
            _claim: claim,
        })
    }

    fn port(&self) -> &Port {
        &self.shared.ports[self.index]
    }

    fn try_send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        frame.check(self.shared.offloads, MAX_FRAME)?;
        if !self.shared.link.is_up() {
            return Err(SendError::LinkDown);
        }
        let header = frame.wire_header().to_bytes();
        let port = &self.shared.ports[self.index];
        match self.vectors.write(port.fd(), Kind::Device, &header, frame) {
            Ok(_) => {
                self.watch_space(false);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.watch_space(true);
                Err(SendError::Full)
            }
            Err(error) if is_gone(&error) => {
                self.shared.lost();
                Err(SendError::LinkDown)
            }
            // The interface is not up (EIO), or the kernel refuses the frame (EINVAL).
            Err(error) => Err(SendError::Os(error.raw_os_error().unwrap_or(libc::EIO))),
        }
    }

    fn try_receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        if !self.shared.link.is_up() {
            self.shared.lost();
            return Err(ReceiveError::LinkDown);
        }
        let mut header = [0; VnetHeader::LENGTH];
        // A frame that fills this byte was longer than the space.
        let mut spare = [0];
        let port = &self.shared.ports[self.index];
        match self.vectors.read(port.fd(), Kind::Device, &mut header, space, &mut spare) {
            Ok(read) => match read.checked_sub(header.len()) {
                None => Err(ReceiveError::Os(libc::EIO)),
                Some(length) if length > space.len() => Err(ReceiveError::TooLong),
                Some(length) => {
                    let header = VnetHeader::from_bytes(&header);
                    Ok(Some(Received { offset: 0, length, header }))
                }
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if is_gone(&error) => {
                self.shared.lost();
                Err(ReceiveError::LinkDown)
            }
            Err(error) => Err(ReceiveError::Os(error.raw_os_error().unwrap_or(libc::EIO))),
        }
    }

    fn watch_space(&mut self, wanted: bool) {
        if self.waits_for_space != wanted
            && self.port().readiness.watch(self.port().fd.as_raw_fd(), wanted).is_ok()
        {
            self.waits_for_space = wanted;
        }
    }
}

impl Queue for TapQueue {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        let result = self.try_send(frame);
        self.counters.count_send(frame.pieces.len(), result);
        result
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        let result = self.try_receive(space);
        self.counters.count_receive(&result);
        result
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.port().readiness.event())
    }

    fn counters(&self) -> Counters {
        self.counters
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
