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
        let (event, space) = (EventFd::new(EFD_NONBLOCK)?, EventFd::new(EFD_NONBLOCK)?);
        space.write(1)?;
        Ok(Counted::boxed(LoopQueue { ring: FrameRing::new(RING), event, space }, claim))
    }
}

struct LoopQueue {
    ring: FrameRing,
    /// Readable while the ring has frames.
    event: EventFd,
    /// Readable while half of the ring is free.
    space: EventFd,
}

impl LoopQueue {
    /// Makes the events readable or not after a change of the ring.
    fn update(&mut self, (was_empty, had_space): (bool, bool)) {
        let (is_empty, has_space) = self.state();
        for (event, was, is) in
            [(&self.event, !was_empty, !is_empty), (&self.space, had_space, has_space)]
        {
            // A write fails only when the counter is full: the event is readable then. A read fails
            // when it is not readable.
            match (was, is) {
                (false, true) => _ = event.write(1),
                (true, false) => _ = event.read(),
                _ => {}
            }
        }
    }

    /// Returns whether the ring is empty, and whether half of it is free.
    fn state(&self) -> (bool, bool) {
        (self.ring.is_empty(), self.ring.free_bytes() >= RING / 2)
    }
}

impl Uncounted for LoopQueue {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        frame.check(Offloads::all(), MAX_FRAME)?;
        let before = self.state();
        self.ring.push(frame).map_err(|_| SendError::Full)?;
        self.update(before);
        Ok(())
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        let before = self.state();
        let result = self.ring.pop(space);
        self.update(before);
        result
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.event.as_raw_fd())
    }

    fn space_event(&self) -> Option<RawFd> {
        Some(self.space.as_raw_fd())
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
        let space = queue.space_event().unwrap();
        assert!(!is_readable(space));
        for seed in 0..sent {
            assert!(is_readable(event));
            assert_eq!(receive(&mut *queue, 5000), Ok(Some(frame(5000, seed))));
        }
        assert!(is_readable(space));
        assert!(!is_readable(event));
        assert_eq!(receive(&mut *queue, 5000), Ok(None));
    }
}
