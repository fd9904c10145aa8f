use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::conformance::{Memory, OverSwitch, check, frame, receive};
use crate::{Loop, NullNet};

/// A file in memory.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that blocks the second write until the test allows it, and reports the attempt.
struct Slow {
    file: Shared,
    started: bool,
    asked: Sender<()>,
    allowed: Receiver<()>,
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if std::mem::replace(&mut self.started, true) {
            let _ = self.asked.send(());
            // It returns immediately after the other end was dropped.
            let _ = self.allowed.recv();
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is full after its start.
struct Full(bool);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if std::mem::replace(&mut self.0, true) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Returns the kind and the content of each block.
fn blocks(file: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let (mut blocks, mut rest) = (Vec::new(), file);
    while !rest.is_empty() {
        let length = word(rest, 4) as usize;
        assert_eq!(length % 4, 0);
        assert_eq!(word(rest, length - 4) as usize, length, "the length again");
        blocks.push((word(rest, 0), rest[8..length - 4].to_vec()));
        rest = &rest[length..];
    }
    blocks
}

/// Returns the direction and the bytes of each frame.
fn packets(file: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let packets = blocks(file).into_iter().filter(|(kind, _)| *kind == 6);
    packets
        .map(|(_, content)| {
            let length = word(&content, 12) as usize;
            assert_eq!(word(&content, 16) as usize, length, "nothing is cut");
            let options = &content[20 + length.next_multiple_of(4)..];
            assert_eq!((word(options, 0), word(options, 8)), (4 << 16 | 2, 0));
            (word(options, 4), content[20..20 + length].to_vec())
        })
        .collect()
}

fn send(queue: &mut dyn Queue, bytes: &[u8], tag: Option<Tag>) {
    let mut memory = Memory::odd(bytes);
    let pieces = memory.pieces();
    queue.send(&Frame { tag, ..Frame::new(&pieces) }).unwrap();
}

#[test]
fn test_capture_of_both_directions_has_all_frames_in_order() {
    let file = Shared::default();
    let capture = Capture::new(Arc::new(Loop::new(1)), file.clone(), "nic0").unwrap();
    let mut queue = capture.queue(0).unwrap();
    let mut expected = Vec::new();
    for (seed, length) in [14, 15, 16, 17, 1514, 65_535].into_iter().enumerate() {
        let bytes = frame(length, seed as u8);
        send(&mut *queue, &bytes, None);
        assert!(receive(&mut *queue, length) == Ok(Some(bytes.clone())));
        expected.extend([(2, bytes.clone()), (1, bytes)]);
    }
    send(&mut *queue, &frame(20, 1), Some(Tag(5)));
    let tagged = [&frame(20, 1)[..12], &[0x81, 0, 0, 5], &frame(20, 1)[12..]].concat();
    expected.push((2, tagged));
    assert_eq!((capture.recorded(), capture.dropped()), (13, 0));
    drop(capture);
    let bytes = file.bytes();
    assert!(packets(&bytes) == expected);
    let blocks = blocks(&bytes);
    let (kind, section) = &blocks[0];
    assert_eq!((*kind, word(section, 0), word(section, 4)), (0x0a0d_0d0a, 0x1a2b_3c4d, 1));
    let (kind, interface) = &blocks[1];
    assert_eq!((*kind, word(interface, 0)), (1, 1), "Ethernet");
    assert_eq!(interface[8..], *b"\x02\0\x04\0nic0\x09\0\x01\0\x09\0\0\0\0\0\0\0");
    let (kind, totals) = blocks.last().unwrap();
    assert_eq!((*kind, word(totals, 16), word(totals, 28)), (5, 13, 0));
    drop(queue);
}

#[test]
fn test_capture_to_a_slow_file_drops_records_and_no_frames() {
    let file = Shared::default();
    let ((asked, is_asked), (allow, allowed)) = (channel(), channel());
    let slow = Slow { file: file.clone(), started: false, asked, allowed };
    let capture = Capture::new(Arc::new(NullNet::new(1)), slow, "nic0").unwrap();
    let mut queue = capture.queue(0).unwrap();
    send(&mut *queue, &frame(60_000, 0), None);
    is_asked.recv().unwrap();
    // The thread waits for the file from here on.
    let count = 2 * writer::CAPACITY / 60_000;
    (0..count).for_each(|seed| send(&mut *queue, &frame(60_000, seed as u8), None));
    assert_eq!(queue.counters().sent_frames, count as u64 + 1);
    assert_eq!(capture.recorded() + capture.dropped(), count as u64 + 1);
    let dropped = capture.dropped();
    assert!(dropped as usize >= count / 2, "{dropped} of {count}");
    drop(allow);
    drop(capture);
    let bytes = file.bytes();
    assert_eq!(packets(&bytes).len() as u64, count as u64 + 1 - dropped);
    let (_, totals) = blocks(&bytes).pop().unwrap();
    assert_eq!(u64::from(word(&totals, 28)), dropped);
}

#[test]
fn test_capture_to_a_full_disk_lets_frames_pass() {
    let capture = Capture::new(Arc::new(NullNet::new(1)), Full(false), "nic0").unwrap();
    let mut queue = capture.queue(0).unwrap();
    // The thread fails at some moment; each frame is one or the other.
    for seed in 0..200 {
        send(&mut *queue, &frame(60_000, seed), None);
    }
    assert_eq!(queue.counters().sent_frames, 200);
    assert_eq!(capture.recorded() + capture.dropped(), 200);
    drop(capture);
    send(&mut *queue, &frame(60, 1), None);
}

#[test]
fn test_capture_does_all_that_a_backend_must() {
    check(|| OverSwitch::new(|port| Capture::new(Arc::new(port), io::sink(), "port").unwrap()));
}
