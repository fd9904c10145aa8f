//! A backend without an outside, for measurements.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::claim::Claims;
use crate::counted::{Counted, Uncounted};
use crate::{
    Backend, Frame, MAX_FRAME, Offloads, Pieces, Queue, ReceiveError, Received, SendError,
    VnetHeader,
};

/// Drops each sent frame. Receives nothing, or one frame endlessly.
#[derive(Debug)]
pub struct NullNet {
    frame: Option<Arc<[u8]>>,
    claims: Claims,
}

impl NullNet {
    /// Returns a backend of `queues` queues (at least one) that receives nothing.
    pub fn new(queues: usize) -> Self {
        Self { frame: None, claims: Claims::new(queues.max(1)) }
    }

    /// Returns the same backend, with queues that always have `frame` to receive.
    #[must_use]
    pub fn repeating(mut self, frame: &[u8]) -> Self {
        self.frame = Some(frame.into());
        self
    }
}

impl Backend for NullNet {
    fn queues(&self) -> usize {
        self.claims.count()
    }

    fn offloads(&self) -> Offloads {
        Offloads::all()
    }

    fn queue(&self, index: usize) -> io::Result<Box<dyn Queue>> {
        let claim = self.claims.claim(index)?;
        let endless = match &self.frame {
            None => None,
            Some(frame) => {
                let event = EventFd::new(EFD_NONBLOCK)?;
                event.write(1)?;
                Some((Arc::clone(frame), event))
            }
        };
        Ok(Counted::boxed(NullQueue { endless }, claim))
    }
}

struct NullQueue {
    /// The frame to receive, and an event that is always readable.
    endless: Option<(Arc<[u8]>, EventFd)>,
}

impl Uncounted for NullQueue {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        frame.check(Offloads::all(), MAX_FRAME)
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        match &self.endless {
            None => Ok(None),
            Some((frame, _)) if frame.len() > space.len() => Err(ReceiveError::TooLong),
            Some((frame, _)) => {
                let length = space.copy_from(0, frame);
                Ok(Some(Received { offset: 0, length, header: VnetHeader::default() }))
            }
        }
    }

    fn event(&self) -> Option<RawFd> {
        self.endless.as_ref().map(|(_, event)| event.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Memory, check_claims, frame, receive};

    #[test]
    fn test_null_net_takes_all_frames_and_receives_none() {
        let net = NullNet::new(2);
        check_claims(&net);
        let mut queue = net.queue(1).unwrap();
        for length in [14, 1514, 65_535] {
            let mut memory = Memory::whole(&frame(length, 1));
            queue.send(&Frame::new(&memory.pieces())).unwrap();
        }
        let mut short = Memory::whole(&[0; 13]);
        assert_eq!(queue.send(&Frame::new(&short.pieces())), Err(SendError::Length(13)));
        assert_eq!(receive(&mut *queue, 2000), Ok(None));
        assert!(queue.event().is_none());
        let counters = queue.counters();
        assert_eq!((counters.sent_frames, counters.send_invalid), (3, 1));
        assert_eq!(counters.sent_bytes, 14 + 1514 + 65_535);
    }

    #[test]
    fn test_null_net_that_repeats_always_has_the_frame() {
        let net = NullNet::new(1).repeating(&frame(60, 3));
        let mut queue = net.queue(0).unwrap();
        for _ in 0..3 {
            assert!(crate::conformance::is_readable(queue.event().unwrap()));
            assert_eq!(receive(&mut *queue, 60), Ok(Some(frame(60, 3))));
        }
        assert_eq!(receive(&mut *queue, 59), Err(ReceiveError::TooLong));
        assert_eq!(queue.counters().received_frames, 3);
    }
}
