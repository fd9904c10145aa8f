//! Single frames, both ways.

use super::{Fixture, Memory, frame, receive, receive_wait};
use crate::vlan::Tag;
use crate::{Frame, LinkState, MAX_FRAME, ReceiveError, SendError, VnetHeader};

const SIZES: [usize; 16] =
    [14, 15, 46, 59, 60, 64, 255, 1499, 1514, 1515, 4096, 9000, 9014, 9216, 40_001, 65_535];

/// Frames of all sizes keep their content.
pub(super) fn check_sizes<F: Fixture>(fixture: &mut F) {
    assert_eq!(fixture.backend().link(), LinkState::Up);
    let mut queue = fixture.backend().queue(0).expect("a queue");
    let longest = fixture.longest();
    let mut bytes = 0;
    let sizes = || SIZES.into_iter().filter(|size| *size <= longest);
    for (seed, size) in sizes().enumerate() {
        let expected = frame(size, seed as u8);
        queue.send(&Frame::new(&Memory::whole(&expected).pieces())).expect("sent");
        assert!(fixture.take() == expected, "{size} bytes sent");
        fixture.inject(&expected);
        assert!(receive_wait(&mut *queue) == expected, "{size} bytes received");
        bytes += size as u64;
    }
    assert_eq!(receive(&mut *queue, 66_000), Ok(None));
    let counters = queue.counters();
    assert_eq!((counters.sent_frames, counters.sent_bytes), (sizes().count() as u64, bytes));
    assert!(counters.received_frames >= counters.sent_frames && counters.received_bytes >= bytes);
}

/// The pieces of a frame may be of any lengths.
pub(super) fn check_scattered<F: Fixture>(fixture: &mut F) {
    let mut queue = fixture.backend().queue(0).expect("a queue");
    let cuts: [&[usize]; 6] =
        [&[6], &[1, 11, 1, 1], &[12, 2], &[13, 4096], &[1, 2, 3, 4, 5, 60, 7, 8], &[3, 1000]];
    for (seed, cut) in cuts.into_iter().enumerate() {
        let expected = frame(800, seed as u8);
        let mut memory = Memory::cut(&expected, cut);
        queue.send(&Frame::new(&memory.pieces())).expect("sent");
        assert!(fixture.take() == expected, "pieces of {cut:?}");
        assert!(memory.bytes() == expected, "the memory stays as it is");
    }
    // As many pieces as there may be.
    let expected = frame(crate::MAX_PIECES, 99);
    queue.send(&Frame::new(&Memory::cut(&expected, &[1]).pieces())).expect("sent");
    assert!(fixture.take() == expected, "pieces of one byte");
    fixture.inject(&expected);
    super::wait_readable(queue.event().expect("an event"));
    let mut memory = Memory::cut(&[0; crate::MAX_PIECES], &[1]);
    loop {
        match queue.receive(&memory.pieces()) {
            Ok(Some(received)) if super::is_test_frame(&memory.bytes()) => {
                assert_eq!(received.length, expected.len());
                break;
            }
            _ => super::wait_readable(queue.event().expect("an event")),
        }
    }
    assert!(memory.bytes() == expected, "received in pieces of one byte");
}

/// A tag is inserted behind the addresses, wherever the pieces are cut.
pub(super) fn check_tags<F: Fixture>(fixture: &mut F) {
    let mut queue = fixture.backend().queue(0).expect("a queue");
    let bytes = frame(77, 5);
    let expected = [&bytes[..12], &Tag(0x6123).to_bytes(), &bytes[12..]].concat();
    for cut in [1, 5, 11, 12, 13, 77] {
        let mut memory = Memory::cut(&bytes, &[cut]);
        let pieces = memory.pieces();
        let frame = Frame { tag: Some(Tag(0x6123)), ..Frame::new(&pieces) };
        queue.send(&frame).expect("sent");
        assert_eq!(fixture.take(), expected, "pieces of {cut}");
    }
}

/// Frames and offload requests that are wrong are refused, and good ones pass after them.
pub(super) fn check_invalid<F: Fixture>(fixture: &mut F) {
    let mut queue = fixture.backend().queue(0).expect("a queue");
    for length in [0, 1, 13, MAX_FRAME + 1] {
        let mut memory = Memory::whole(&vec![1; length]);
        let sent = queue.send(&Frame::new(&memory.pieces()));
        assert_eq!(sent, Err(SendError::Length(length)));
    }
    let headers = [
        VnetHeader::checksum(60, 3),
        VnetHeader::checksum(0, 16),
        VnetHeader { gso_type: 1, ..VnetHeader::checksum(34, 16) },
        VnetHeader { gso_type: 9, gso_size: 100, ..VnetHeader::checksum(34, 16) },
        VnetHeader { flags: 0xff, gso_type: 0xff, gso_size: 0xffff, ..VnetHeader::default() },
    ];
    for header in headers {
        let mut memory = Memory::whole(&frame(64, 1));
        let pieces = memory.pieces();
        let sent = queue.send(&Frame { header, ..Frame::new(&pieces) });
        assert_eq!(sent, Err(SendError::Malformed), "{header:?}");
    }
    assert_eq!(queue.counters().send_invalid, 9);
    let expected = frame(64, 2);
    queue.send(&Frame::new(&Memory::whole(&expected).pieces())).expect("sent");
    assert!(fixture.take() == expected, "only the good frame is sent");
}

/// A frame that does not fit the space is dropped, and the next one is whole.
pub(super) fn check_short_space<F: Fixture>(fixture: &mut F) {
    let mut queue = fixture.backend().queue(0).expect("a queue");
    for space in [0, 14, 999] {
        fixture.inject(&frame(1000, 1));
        loop {
            match receive(&mut *queue, space) {
                Err(error) => {
                    assert_eq!(error, ReceiveError::TooLong);
                    break;
                }
                Ok(None) => super::wait_readable(queue.event().expect("an event")),
                Ok(Some(_)) => panic!("1000 bytes in {space}"),
            }
        }
        fixture.inject(&frame(500, 2));
        assert!(next_fitting(&mut *queue) == frame(500, 2), "the next frame");
    }
    assert!(queue.counters().receive_too_long >= 3);
}

/// Frames of the host's own may have been the ones that did not fit.
fn next_fitting(queue: &mut dyn crate::Queue) -> Vec<u8> {
    loop {
        let next = receive_wait(queue);
        if next != frame(1000, 1) {
            return next;
        }
    }
}
