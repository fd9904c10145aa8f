//! A backend that returns what is sent.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::claim::{Claim, Claims};
use crate::ring::FrameRing;
use crate::{
    Backend, Counters, Frame, LinkState, MAX_FRAME, MIN_FRAME, Offloads, Pieces, Queue,
    ReceiveError, Received, SendError,
};

/// Bytes of frames that are on their way back.
const RING: usize = 256 << 10;

/// Each queue receives the frames that were sent on it, with their offload requests. A sender that
/// does not receive finds the queue full.
#[derive(Debug)]
pub struct Loop {
    claims: Claims,
    queues: usize,
}

impl Loop {
    /// Returns a backend of `queues` queues; at least one.
    pub fn new(queues: usize) -> Self {
        let queues = queues.max(1);
        Self { claims: Claims::new(queues), queues }
    }
}

impl Backend for Loop {
    fn queues(&self) -> usize {
        self.queues
    }

    fn offloads(&self) -> Offloads {
        Offloads::all()
    }

    fn mtu_limit(&self) -> u32 {
        (MAX_FRAME - MIN_FRAME) as u32
    }

    fn queue(&self, index: usize) -> io::Result<Box<dyn Queue>> {
        Ok(Box::new(LoopQueue {
            _claim: self.claims.claim(index)?,
            ring: FrameRing::new(RING),
            event: EventFd::new(EFD_NONBLOCK)?,
            counters: Counters::default(),
        }))
    }

    fn link(&self) -> LinkState {
        LinkState::Up
    }

    fn set_receive_offloads(&self, _: Offloads) -> io::Result<()> {
        Ok(())
    }
}

struct LoopQueue {
    ring: FrameRing,
    /// Readable while the ring has frames.
    event: EventFd,
    counters: Counters,
    _claim: Claim,
}

impl Queue for LoopQueue {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        let was_empty = self.ring.is_empty();
        let result = frame
            .check(Offloads::all(), MAX_FRAME)
            .and_then(|()| self.ring.push(frame).map_err(|_| SendError::Full));
        if was_empty && result.is_ok() {
            // It fails only when the counter is full: the event is readable then.
            let _ = self.event.write(1);
        }
        self.counters.count_send(frame.pieces.len(), result);
        result
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        let result = self.ring.pop(space);
        if self.ring.is_empty() {
            // It fails when the event is not readable: there is nothing to clear.
            let _ = self.event.read();
        }
        self.counters.count_receive(&result);
        result
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.event.as_raw_fd())
    }

    fn counters(&self) -> Counters {
        self.counters
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
