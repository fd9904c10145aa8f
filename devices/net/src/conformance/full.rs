//! Backends that nothing takes frames from, and queues that are closed early.

use super::{Fixture, Memory, frame, receive_wait, wait_readable};
use crate::{Frame, SendError};

/// Frames that are sent while the far end takes none; more than any backend holds.
const MANY: usize = 20_000;

/// A backend whose far end takes no frames is full or drops, and goes on when frames are taken.
/// Those that come are whole and in order.
pub(super) fn check_full<F: Fixture>(fixture: &mut F) {
    let mut queue = fixture.backend().queue(0).expect("a queue");
    let mut full = false;
    for number in 0..MANY {
        match queue.send(&Frame::new(&numbered(number).pieces())) {
            Ok(()) => {}
            Err(SendError::Full) => {
                full = true;
                break;
            }
            Err(error) => panic!("frame {number}: {error}"),
        }
    }
    assert_eq!(queue.counters().full, u64::from(full));
    let mut last = None;
    let mut order = |bytes: &[u8]| {
        let number = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        assert!(bytes == numbered(number).bytes(), "frame {number} is whole");
        assert!(last.replace(number) < Some(number), "frame {number} is in order");
    };
    if !full {
        while let Some(bytes) = fixture.try_take() {
            order(&bytes);
        }
    }
    // Until the backend takes frames again.
    while full {
        order(&fixture.take());
        while let Some(bytes) = fixture.try_take() {
            order(&bytes);
        }
        wait_readable(queue.space_event().expect("an event of space"));
        queue.flush();
        full = queue.send(&Frame::new(&numbered(MANY).pieces())) == Err(SendError::Full);
    }
    // A part of the last frame may be left. Nothing is received, and the event of data is not used.
    while queue.has_unsent() {
        order(&fixture.take());
        queue.flush();
    }
    while let Some(bytes) = fixture.try_take() {
        order(&bytes);
    }
    queue.send(&Frame::new(&numbered(MANY + 1).pieces())).expect("space");
    while fixture.take() != numbered(MANY + 1).bytes() {}
}

/// A queue that is closed before all was received opens again and works.
pub(super) fn check_closed_with_data<F: Fixture>(fixture: &mut F) {
    let queue = fixture.backend().queue(0).expect("a queue");
    for seed in 0..5 {
        fixture.inject(&frame(200, seed));
    }
    drop(queue);
    let mut queue = fixture.backend().queue(0).expect("a queue again");
    fixture.inject(&frame(300, 77));
    while receive_wait(&mut *queue) != frame(300, 77) {}
    queue.send(&Frame::new(&Memory::whole(&frame(60, 78)).pieces())).expect("sent");
    assert!(fixture.take() == frame(60, 78), "sent by the second queue");
}

/// A frame with its number after the header.
fn numbered(number: usize) -> Memory {
    let mut bytes = frame(1000, number as u8);
    bytes[14..16].copy_from_slice(&(number as u16).to_be_bytes());
    Memory::whole(&bytes)
}
