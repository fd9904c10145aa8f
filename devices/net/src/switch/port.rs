//! One port of the switch.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{CAPACITY, Shared};
use crate::claim::{Claim, Claims};
use crate::ring::FrameRing;
use crate::{
    Backend, Counters, Frame, LinkState, MAX_FRAME, MIN_FRAME, Offloads, Pieces, Queue,
    ReceiveError, Received, SendError,
};

/// The frames that wait for one port's receiver.
#[derive(Debug)]
pub(super) struct Port {
    waiting: Mutex<Waiting>,
    /// Readable while frames wait.
    event: EventFd,
    claims: Claims,
}

#[derive(Debug)]
struct Waiting {
    /// `None` while the port has no queue: frames to it are dropped.
    ring: Option<FrameRing>,
    /// Frames that the ring had no space for.
    dropped: u64,
}

impl Port {
    /// Returns a port without queue.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            waiting: Mutex::new(Waiting { ring: None, dropped: 0 }),
            event: EventFd::new(EFD_NONBLOCK)?,
            claims: Claims::new(1),
        })
    }

    /// Appends a frame for the receiver, or drops and counts it.
    pub(super) fn deliver(&self, frame: &Frame<'_>) {
        let mut waiting = self.lock();
        let Some(ring) = &mut waiting.ring else { return };
        let was_empty = ring.is_empty();
        if ring.push(frame).is_err() {
            waiting.dropped = waiting.dropped.wrapping_add(1);
        } else if was_empty {
            // It fails only when the counter is full: the event is readable then.
            let _ = self.event.write(1);
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
        Offloads::empty()
    }

    fn mtu_limit(&self) -> u32 {
        (MAX_FRAME - MIN_FRAME) as u32
    }

    fn queue(&self, index: usize) -> io::Result<Box<dyn Queue>> {
        let port = self.port();
        let claim = port.claims.claim(index)?;
        let mut waiting = port.lock();
        waiting.ring = Some(FrameRing::new(CAPACITY));
        waiting.dropped = 0;
        let _ = port.event.read();
        drop(waiting);
        let (shared, port) = (Arc::clone(&self.shared), self.index);
        Ok(Box::new(PortQueue { shared, port, counters: Counters::default(), _claim: claim }))
    }

    fn link(&self) -> LinkState {
        LinkState::Up
    }
}

struct PortQueue {
    shared: Arc<Shared>,
    port: usize,
    counters: Counters,
    _claim: Claim,
}

impl PortQueue {
    fn port(&self) -> &Port {
        &self.shared.ports[self.port]
    }
}

impl Queue for PortQueue {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        let result = frame.check(Offloads::empty(), MAX_FRAME);
        if result.is_ok() {
            self.shared.forward(self.port, frame);
        }
        self.counters.count_send(frame.pieces.len(), result);
        result
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        let result = self.port().receive(space);
        self.counters.count_receive(&result);
        result
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.port().event.as_raw_fd())
    }

    fn counters(&self) -> Counters {
        Counters { receive_overflow: self.port().lock().dropped, ..self.counters }
    }
}

impl Drop for PortQueue {
    fn drop(&mut self) {
        // Before the claim ends: the next queue makes its own.
        self.port().lock().ring = None;
    }
}
