//! One port of the switch.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{CAPACITY, Shared};
use crate::claim::Claims;
use crate::counted::{Counted, Uncounted};
use crate::ring::FrameRing;
use crate::software::Work;
use crate::{
    Backend, Counters, Frame, MAX_FRAME, Offloads, Pieces, Queue, ReceiveError, Received,
    Segmentation, SendError, VnetHeader,
};

/// The pending frames of one port.
#[derive(Debug)]
pub(super) struct Port {
    waiting: Mutex<Waiting>,
    /// Readable while frames wait.
    event: EventFd,
    /// The bits of the receive offloads in use.
    selected: AtomicU8,
    claims: Claims,
}

#[derive(Debug)]
struct Waiting {
    /// `None` while the port has no queue: frames to it are dropped.
    ring: Option<FrameRing>,
    /// Frames that the ring had no space for.
    dropped: u64,
    /// Frames whose offload request did not fit them.
    invalid: u64,
}

impl Port {
    /// Returns a port without queue.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            waiting: Mutex::new(Waiting { ring: None, dropped: 0, invalid: 0 }),
            event: EventFd::new(EFD_NONBLOCK)?,
            selected: AtomicU8::new(0),
            claims: Claims::new(1),
        })
    }

    /// Appends a frame for the receiver, or drops and counts it. `work` is the sender's, for frames
    /// that the receiver cannot take as they are.
    pub(super) fn deliver(&self, frame: &Frame<'_>, work: &mut Work) {
        let as_it_is = self.takes(frame);
        if !as_it_is && work.start(frame).is_err() {
            self.lock().invalid += 1;
            return;
        }
        let mut waiting = self.lock();
        let Waiting { ring: Some(ring), dropped, .. } = &mut *waiting else { return };
        let was_empty = ring.is_empty();
        if as_it_is {
            *dropped += u64::from(ring.push(frame).is_err());
        } else {
            while let Some(bytes) = work.current() {
                *dropped += u64::from(ring.push_bytes(bytes, VnetHeader::default()).is_err());
                work.advance();
            }
        }
        if was_empty && !ring.is_empty() {
            // It fails only when the counter is full: the event is readable then.
            let _ = self.event.write(1);
        }
    }

    /// Returns whether the receiver has selected the offloads that the frame needs.
    fn takes(&self, frame: &Frame<'_>) -> bool {
        let selected = Offloads::from_bits_truncate(self.selected.load(Ordering::Relaxed));
        match frame.header.segmentation() {
            Ok(None) => {
                !frame.header.needs_checksum() || selected.contains(Offloads::RECEIVE_CHECKSUM)
            }
            Ok(Some(Segmentation::Tcp4 | Segmentation::Tcp6)) => {
                selected.contains(Offloads::RECEIVE)
            }
            Ok(Some(Segmentation::Udp)) | Err(_) => false,
        }
    }

    fn receive(&self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        let mut waiting = self.lock();
        let Some(ring) = &mut waiting.ring else { return Ok(None) };
        let result = ring.pop(space);
        if ring.is_empty() {
            // It fails when the event is not readable: there is nothing to clear.
            let _ = self.event.read();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One port of a [`Switch`](super::Switch), as the backend of one card. It has one queue.
#[derive(Debug)]
pub struct SwitchPort {
    shared: Arc<Shared>,
    index: usize,
}

impl SwitchPort {
    pub(super) fn new(shared: Arc<Shared>, index: usize) -> Self {
        Self { shared, index }
    }

    fn port(&self) -> &Port {
        &self.shared.ports[self.index]
    }
}

impl Backend for SwitchPort {
    fn offloads(&self) -> Offloads {
        Offloads::all()
    }

    fn queue(&self, index: usize) -> io::Result<Box<dyn Queue>> {
        let port = self.port();
        let claim = port.claims.claim(index)?;
        let mut waiting = port.lock();
        waiting.ring = Some(FrameRing::new(CAPACITY));
        (waiting.dropped, waiting.invalid) = (0, 0);
        let _ = port.event.read();
        drop(waiting);
        let (shared, port) = (Arc::clone(&self.shared), self.index);
        Ok(Counted::boxed(PortQueue { shared, port, work: Work::new() }, claim))
    }

    fn set_receive_offloads(&self, offloads: Offloads) -> io::Result<()> {
        let selected = offloads & Offloads::RECEIVE;
        self.port().selected.store(selected.bits(), Ordering::Relaxed);
        Ok(())
    }
}

struct PortQueue {
    shared: Arc<Shared>,
    port: usize,
    work: Work,
}

impl PortQueue {
    fn port(&self) -> &Port {
        &self.shared.ports[self.port]
    }
}

impl Uncounted for PortQueue {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        frame.check(Offloads::all(), MAX_FRAME)?;
        self.shared.forward(self.port, frame, &mut self.work);
        Ok(())
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        self.port().receive(space)
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.port().event.as_raw_fd())
    }

    fn add_own(&self, counters: &mut Counters) {
        let waiting = self.port().lock();
        counters.receive_overflow = waiting.dropped;
        counters.receive_invalid = waiting.invalid;
    }
}

impl Drop for PortQueue {
    fn drop(&mut self) {
        // Before the claim ends: the next queue makes its own.
        self.port().lock().ring = None;
    }
}
