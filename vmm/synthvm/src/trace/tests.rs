use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use vmbus_host::{BusTrace, TracedPacket};
use vmbus_protocol::guid;
use vmbus_protocol::message::Direction;
use vmbus_ring::PacketKind;

use super::format;
use super::reader::TraceError;
use super::show::{ShowError, show};
use super::writer;

/// A file in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that takes nothing before it is told to.
struct Slow {
    file: Memory,
    reached: Sender<()>,
    go: Receiver<()>,
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.reached.send(());
        // An error means that all may be written.
        let _ = self.go.recv();
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn packet(payload: &[u8]) -> TracedPacket<'_> {
    TracedPacket {
        direction: Direction::ToHost,
        relid: 5,
        subchannel: 1,
        kind: PacketKind::GpaDirect,
        transaction_id: 0x1234,
        completion_requested: true,
        payload_len: 80,
        payload,
    }
}

/// Returns OFFERCHANNEL for a SCSI controller with relid 5.
fn offer() -> Vec<u8> {
    let mut message = vec![0; 196];
    message[0] = 1;
    message[8..24].copy_from_slice(&guid::class::SCSI.to_bytes());
    message[184] = 5;
    message
}

fn text(file: &[u8]) -> (String, Option<ShowError>) {
    let mut out = Vec::new();
    let error = show(file, &mut out).err();
    (String::from_utf8(out).unwrap(), error)
}

fn whole() -> Vec<u8> {
    [
        format::header(7),
        format::message(1_500_000_000, Direction::ToGuest, &offer()),
        format::packet(1_500_002_000, &packet(&[0xAB; 8])),
        format::dropped(1_500_003_000, 9),
    ]
    .concat()
}

#[test]
fn test_trace_shown_names_messages_classes_packets_and_drops() {
    let (text, error) = text(&whole());
    assert!(error.is_none(), "{error:?}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    let offer =
        "     1.500000 < OfferChannel channel 5 (scsi), 196 bytes: 01000000 00000000 d96361ba";
    assert!(lines[0].starts_with(offer), "{}", lines[0]);
    assert_eq!(
        lines[1],
        "     1.500002 > channel 5.1 (scsi) GPA direct, transaction 0x1234, completion requested, \
         80 bytes: abababab abababab ..."
    );
    assert_eq!(lines[2], "     1.500003 ! 9 records were dropped here");
}

#[test]
fn test_trace_cut_off_anywhere_is_shown_up_to_there_with_one_error() {
    let file = whole();
    let records = [24, 24 + 212, 24 + 212 + 48, file.len()];
    for end in 0..file.len() {
        let (text, error) = text(&file[..end]);
        let before = records.iter().skip(1).filter(|at| **at <= end).count();
        assert_eq!(text.lines().count(), before, "{end}");
        match error {
            None => assert!(records.contains(&end), "{end}"),
            Some(ShowError::Trace(TraceError::Foreign)) => assert!(end < 24),
            Some(ShowError::Trace(TraceError::Truncated(count))) => {
                assert_eq!(count, before as u64);
            }
            Some(other) => panic!("{end}: {other:?}"),
        }
    }
}

#[test]
fn test_trace_of_another_format_version_or_with_impossible_records_is_refused() {
    let error = |file: &[u8]| match text(file).1 {
        Some(ShowError::Trace(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(error(&[0; 100]).contains("is no trace"));
    let mut other = whole();
    other[8] = 2;
    assert!(error(&other).contains("has version 2"));
    for size in [0_u32, 15, 5000, u32::MAX] {
        let mut damaged = whole();
        damaged[24..28].copy_from_slice(&size.to_le_bytes());
        assert!(error(&damaged).contains("damaged after 0"), "{size}");
    }
    // A packet's record that is shorter than a packet's header.
    let mut short = format::message(0, Direction::ToHost, &[1; 4]);
    short[4] = 2;
    assert!(error(&[format::header(0), short].concat()).contains("damaged after 0"));
    // A later version may add a kind, which is skipped.
    let mut unknown = format::message(0, Direction::ToHost, &[1; 4]);
    unknown[4] = 99;
    let (shown, problem) = text(&[format::header(0), unknown].concat());
    assert!(problem.is_none() && shown.contains("? record of kind 99"), "{shown}");
}

#[test]
fn test_trace_written_is_what_was_sent() {
    let file = Memory::default();
    let (trace, guard) = writer::start(file.clone(), PathBuf::new(), 100, 10_000).unwrap();
    trace.message(Direction::ToGuest, &offer());
    trace.packet(&packet(&[1; 64]));
    drop(guard);
    let (text, error) = text(&file.0.lock().unwrap());
    assert!(error.is_none() && text.lines().count() == 2, "{text}");
    assert!(text.contains("OfferChannel channel 5 (scsi)") && text.contains("channel 5.1 (scsi)"));
}

#[test]
fn test_trace_of_a_slow_file_drops_and_counts_and_never_waits() {
    let file = Memory::default();
    let ((reached, waits), (go, wait)) = (channel(), channel());
    let slow = Slow { file: file.clone(), reached, go: wait };
    let (trace, guard) = writer::start(slow, PathBuf::new(), 10, 1 << 20).unwrap();
    // The thread waits in its first write, that of the header.
    waits.recv().unwrap();
    for _ in 0..1000 {
        trace.message(Direction::ToHost, &[3, 0, 0, 0]);
    }
    drop(go);
    drop(guard);
    let (text, error) = text(&file.0.lock().unwrap());
    assert!(error.is_none(), "{error:?}");
    let shown = text.matches("> RequestOffers").count();
    let dropped: usize = text
        .lines()
        .filter_map(|line| line.split_once("! ")?.1.split(' ').next()?.parse::<usize>().ok())
        .sum();
    assert_eq!((shown, dropped), (10, 990), "{text}");
}

#[test]
fn test_trace_at_its_largest_size_counts_the_rest() {
    let file = Memory::default();
    let (trace, guard) = writer::start(file.clone(), PathBuf::new(), 100, 50).unwrap();
    for _ in 0..5 {
        trace.message(Direction::ToHost, &[3, 0, 0, 0]);
    }
    drop(guard);
    let (text, _) = text(&file.0.lock().unwrap());
    // A record of 20 bytes fits twice.
    assert_eq!(text.matches("RequestOffers").count(), 2, "{text}");
    assert!(text.contains("! 3 records were dropped"), "{text}");
}
