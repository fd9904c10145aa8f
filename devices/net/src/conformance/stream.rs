//! Frames from one thread to another.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Memory, frame, receive, wait_readable};
use crate::{Frame, Queue, SendError};

/// Frames of a stream.
const FRAMES: usize = 30_000;

/// Bytes of the frame that ends a stream.
const END: usize = 20;

/// Sends 30,000 frames on one thread and receives them on another one, both driven by events.
/// Frames that arrive must be whole and in order; all arrive if the backend is `lossless`.
///
/// # Panics
/// They do not, or an event is missed.
pub fn check_stream(from: &mut dyn Queue, to: &mut dyn Queue, lossless: bool) {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            (0..FRAMES).for_each(|number| send(from, &numbered(number)));
            while !ended.load(Ordering::Acquire) {
                send(from, &frame(END, 1));
                thread::yield_now();
            }
        });
        let (mut next, mut count) = (0, 0);
        loop {
            let Some(bytes) = receive(to, 2000).expect("the link is up") else {
                wait_readable(to.event().expect("an event"));
                continue;
            };
            if bytes.len() == END {
                break;
            }
            let number = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
            assert!(number >= next && bytes == numbered(number), "frame {number} after {next}");
            next = number + 1;
            count += 1;
        }
        ended.store(true, Ordering::Release);
        // The sender may wait for space.
        while receive(to, 2000).expect("the link is up").is_some() {}
        assert!(!lossless || count == FRAMES, "{count} frames arrived");
        assert_ne!(count, 0);
    });
}

fn send(queue: &mut dyn Queue, bytes: &[u8]) {
    let mut memory = Memory::whole(bytes);
    while let Err(error) = queue.send(&Frame::new(&memory.pieces())) {
        assert_eq!(error, SendError::Full);
        wait_readable(queue.space_event().expect("an event of space"));
        queue.flush();
    }
}

/// A frame of a length that varies, with its number after the header.
fn numbered(number: usize) -> Vec<u8> {
    let mut bytes = frame(60 + number * 37 % 1400, number as u8);
    bytes[14..16].copy_from_slice(&(number as u16).to_be_bytes());
    bytes
}
