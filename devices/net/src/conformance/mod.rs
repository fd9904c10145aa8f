//! The requirements of every backend, as checks for the tests of any crate (feature `conformance`).
//!
//! [`check`] drives a backend against its far end, a [`Fixture`]. [`Memory`], [`frame`] and
//! [`receive`] drive a queue in tests of one's own.

mod frames;
mod full;
mod gone;
mod memory;
mod over_switch;
mod stream;
mod wait;

use std::io;

use crate::{Backend, Queue, ReceiveError};
pub use memory::{Memory, frame, is_test_frame};
pub use over_switch::OverSwitch;
pub use stream::check_stream;
pub use wait::{is_readable, wait_readable};

/// A backend with its far end.
pub trait Fixture {
    /// Returns the backend. Its link is up and no queue is open.
    fn backend(&self) -> &dyn Backend;

    /// Sends a frame from the far end to the backend, whose queue 0 is open.
    fn inject(&mut self, frame: &[u8]);

    /// Takes the next frame that the backend sent, and waits for it. Panics after 10 seconds.
    fn take(&mut self) -> Vec<u8>;

    /// Returns the next frame that the backend sent, if one is there.
    fn try_take(&mut self) -> Option<Vec<u8>>;

    /// Returns the longest frame to try, in bytes.
    fn longest(&self) -> usize {
        65_535
    }

    /// Takes the far end away, so that the link goes down. Returns whether it can be.
    fn disconnect(&mut self) -> bool {
        false
    }
}

/// Checks all requirements. `make` returns a new backend each time.
///
/// # Panics
/// The backend does not conform.
pub fn check<F: Fixture>(mut make: impl FnMut() -> F) {
    check_claims(make().backend());
    for check in [
        frames::check_sizes,
        frames::check_scattered,
        frames::check_tags,
        frames::check_invalid,
        frames::check_short_space,
        full::check_full,
        full::check_closed_with_data,
        gone::check_gone,
    ] {
        check(&mut make());
    }
}

/// Checks that each queue opens once, and again after it was closed.
///
/// # Panics
/// The backend does not conform.
pub fn check_claims(backend: &dyn Backend) {
    let kind = |index| backend.queue(index).err().map(|error| error.kind());
    assert_ne!(backend.queues(), 0);
    assert!(backend.mtu_limit() >= 1500, "a usual MTU");
    for index in 0..backend.queues() {
        let queue = backend.queue(index).expect("a queue");
        assert_eq!(kind(index), Some(io::ErrorKind::ResourceBusy), "queue {index} twice");
        drop(queue);
        assert_eq!(kind(index), None, "queue {index} again");
    }
    assert_eq!(kind(backend.queues()), Some(io::ErrorKind::InvalidInput));
    assert_eq!(kind(usize::MAX), Some(io::ErrorKind::InvalidInput));
}

/// Receives the next test frame into `length` bytes in odd pieces. Frames of other kinds, which a
/// host's network sends by itself, are left out. `None`: no frame is there.
///
/// # Errors
/// Those of [`Queue::receive`].
pub fn receive(queue: &mut dyn Queue, length: usize) -> Result<Option<Vec<u8>>, ReceiveError> {
    loop {
        let mut memory = Memory::odd(&vec![0; length]);
        let Some(received) = queue.receive(&memory.pieces())? else { return Ok(None) };
        let end = received.offset + received.length;
        let bytes = memory.bytes();
        assert!(bytes[end..].iter().all(|byte| *byte == 0), "written beyond the frame");
        let frame = bytes[received.offset..end].to_vec();
        if is_test_frame(&frame) {
            return Ok(Some(frame));
        }
    }
}

/// Receives the next test frame and waits for it by the queue's event.
///
/// # Panics
/// None comes in 10 seconds, or the queue fails.
pub fn receive_wait(queue: &mut dyn Queue) -> Vec<u8> {
    loop {
        if let Some(frame) = receive(queue, 66_000).expect("a frame") {
            return frame;
        }
        wait_readable(queue.event().expect("an event"));
    }
}
