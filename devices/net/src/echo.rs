//! A backend that returns each sent frame.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::claim::Claims;
use crate::counted::{Counted, Uncounted};
use crate::ring::FrameRing;
use crate::{
    Backend, Frame, MAX_FRAME, Offloads, Pieces, Queue, ReceiveError, Received, SendError,
};

/// Bytes of frames that are on their way back.
const RING: usize = 256 << 10;

/// Each queue receives the frames that were sent on it, with their offload requests. A sender that
/// does not receive finds the queue full.
#[derive(Debug)]
pub struct Loop {
    claims: Claims,
}

impl Loop {
    /// Returns a backend of `queues` queues; at least one.
    pub fn new(queues: usize) -> Self {
        Self { claims: Claims::new(queues.max(1)) }
    }
}

impl Backend for Loop {
    fn queues(&self) -> usize {
        self.claims.count()
    }

    fn offloads(&self) -> Offloads {
        Offloads::all()
    }

    fn queue(&self, index: usize) -> io::Result<Box<dyn Queue>> {
        let claim = self.claims.claim(index)?;
        let event = EventFd::new(EFD_NONBLOCK)?;
        Ok(Counted::boxed(LoopQueue { ring: FrameRing::new(RING), event }, claim))
    }
}

struct LoopQueue {
    ring: FrameRing,
    /// Readable while the ring has frames.
    event: EventFd,
}

impl Uncounted for LoopQueue {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        frame.check(Offloads::all(), MAX_FRAME)?;
        let was_empty = self.ring.is_empty();
        self.ring.push(frame).map_err(|_| SendError::Full)?;
        if was_empty {
            // It fails only when the counter is full: the event is readable then.
            let _ = self.event.write(1);
        }
        Ok(())
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        let result = self.ring.pop(space);
        if self.ring.is_empty() {
            // It fails when the event is not readable: there is nothing to clear.
            let _ = self.event.read();
        }
        result
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.event.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Memory, check_claims, frame, is_readable, receive};

    #[test]
    fn test_loop_returns_frames_until_it_is_full() {
        let backend = Loop::new(3);
        check_claims(&backend);
        let mut queue = backend.queue(2).unwrap();
        let event = queue.event().unwrap();
        let mut sent = 0;
        while queue.send(&Frame::new(&Memory::odd(&frame(5000, sent)).pieces())).is_ok() {
            sent += 1;
        }
        assert_eq!(queue.counters().full, 1);
        for seed in 0..sent {
            assert!(is_readable(event));
            assert_eq!(receive(&mut *queue, 5000), Ok(Some(frame(5000, seed))));
        }
        assert!(!is_readable(event));
        assert_eq!(receive(&mut *queue, 5000), Ok(None));
    }
}
