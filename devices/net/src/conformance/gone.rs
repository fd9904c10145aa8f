//! Backends whose far end goes away.

use super::{Fixture, Memory, frame, is_readable, wait_readable};
use crate::{Frame, LinkState, ReceiveError, SendError};

/// The link goes down, and nothing hangs or spins.
pub(super) fn check_gone<F: Fixture>(fixture: &mut F) {
    let mut queue = fixture.backend().queue(0).expect("a queue");
    if !fixture.disconnect() {
        return;
    }
    let link_event = fixture.backend().link_event().expect("an event of the link");
    loop {
        let mut memory = Memory::whole(&vec![0; 70_000]);
        match queue.receive(&memory.pieces()) {
            Err(ReceiveError::LinkDown) => break,
            // What had arrived before.
            Ok(Some(_)) => {}
            Ok(None) => wait_readable(queue.event().expect("an event")),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(is_readable(link_event), "the change is signalled");
    assert_eq!(fixture.backend().link(), LinkState::Down);
    assert!(!is_readable(link_event), "the change was seen");
    assert!(!is_readable(queue.event().expect("an event")), "nothing to do while it is down");
    let sent = queue.send(&Frame::new(&Memory::whole(&frame(60, 1)).pieces()));
    assert_eq!(sent, Err(SendError::LinkDown));
    assert_eq!(queue.counters().send_link_down, 1);
    drop(queue);
    // A queue may be opened while the link is down.
    let mut queue = fixture.backend().queue(0).expect("a queue");
    let sent = queue.send(&Frame::new(&Memory::whole(&frame(60, 1)).pieces()));
    assert_eq!(sent, Err(SendError::LinkDown));
}
