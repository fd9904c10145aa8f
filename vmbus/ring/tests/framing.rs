//! Packets in the ring, byte by byte (vmbus-core 6.2; checklist 59 to 62, 70, 71).

mod common;

use common::{BOTH_MODES, READ_INDEX, WRITE_INDEX, drain, padded, ring, write_one};
use vmbus_ring::{Incoming, OutPacket, Outgoing, PacketKind, RingError, WriteError};

/// Checklist 61, and 71 for the ids.
#[test]
fn test_ring_packet_at_every_wrap_position_decodes_and_has_its_trailer() {
    for mode in BOTH_MODES {
        let mut ring = ring(1, mode);
        let size = ring.data_size();
        let payload: Vec<u8> = (0..61).map(|n| n as u8 ^ 0x5A).collect();
        // 16 + 64 + 8 bytes: each start in the last 88 bytes wraps at another unit.
        for start in (0..size).step_by(8) {
            ring.advance_to(start);
            for word in 0..11 {
                ring.set_word(start + 8 * word, u64::MAX);
            }
            let id = 0xFEDC_BA98_0000_0000 | u64::from(start);
            let mut batch = ring.outgoing.batch().unwrap();
            // The payload is written in pieces that meet within units and within the wrap.
            batch
                .write(&OutPacket::request(
                    id,
                    &[&payload[..3], &payload[3..30], &[], &payload[30..]],
                ))
                .unwrap();
            assert!(batch.commit());
            assert_eq!(ring.word(start), 6 | 2 << 16 | 10 << 32 | 1 << 48, "descriptor at {start}");
            assert_eq!(ring.word(start + 8), id);
            assert_eq!(ring.word(start + 80), u64::from(start) << 32, "trailer of {start}");
            assert_eq!(ring.field(WRITE_INDEX), (start + 88) % size);
            let (seen, _) = drain(&mut ring.incoming).unwrap();
            assert_eq!(seen.len(), 1);
            assert_eq!(seen[0].payload, padded(&payload), "payload at {start}, padding zeroed");
            assert_eq!((seen[0].transaction_id, seen[0].completion_requested), (id, true));
            assert_eq!(ring.field(READ_INDEX), (start + 88) % size);
        }
    }
}

#[test]
fn test_ring_payload_of_every_length_round_trips_with_zero_padding() {
    for mode in BOTH_MODES {
        let mut ring = ring(2, mode);
        for len in (0..200).chain(4060..4110).chain([8159, 8160]) {
            let payload: Vec<u8> = (0..len).map(|n| (n * 7 + len) as u8).collect();
            write_one(&mut ring.outgoing, len as u64, &payload).unwrap();
            let (seen, _) = drain(&mut ring.incoming).unwrap();
            assert_eq!(seen[0].payload, padded(&payload), "{len} bytes");
        }
    }
}

#[test]
fn test_ring_partial_reads_at_every_offset_see_the_same_bytes() {
    for mode in BOTH_MODES {
        let mut ring = ring(1, mode);
        let payload: Vec<u8> = (0..64).collect();
        for start in [0, 4096 - 16, 4096 - 40, 4096 - 80] {
            ring.advance_to(start);
            write_one(&mut ring.outgoing, 1, &payload).unwrap();
            let mut batch = ring.incoming.batch().unwrap();
            let packet = batch.next().unwrap().unwrap();
            for from in 0..=70 {
                for len in 0..=70 {
                    let mut bytes = vec![0xAA; len];
                    let got = packet.read_payload_at(from, &mut bytes);
                    assert_eq!(got, len.min(64_usize.saturating_sub(from)));
                    assert_eq!(
                        bytes[..got],
                        payload[from.min(64)..(from + got).min(64).max(from.min(64))]
                    );
                    assert!(
                        bytes[got..].iter().all(|&byte| byte == 0xAA),
                        "only what was read is touched"
                    );
                }
            }
            assert_eq!(packet.read::<[u8; 64]>(), Some(std::array::from_fn(|n| n as u8)));
            assert_eq!(packet.read::<[u8; 65]>(), None);
            assert_eq!(packet.read::<u32>(), Some(0x0302_0100));
            let _ = batch.commit();
        }
    }
}

/// Checklist 59, for the reader.
#[test]
fn test_ring_bad_write_index_stops_the_reader_for_good() {
    for mode in BOTH_MODES {
        for value in [4096, 4, 12, 4092, 4100, 0x8000_0000, u32::MAX] {
            let mut ring = ring(1, mode);
            ring.set_field(WRITE_INDEX, value);
            let error = RingError::WriteIndex { value, data_size: 4096 };
            assert_eq!(ring.incoming.batch().unwrap_err(), error);
            ring.set_field(WRITE_INDEX, 0);
            assert_eq!(
                ring.incoming.batch().unwrap_err(),
                error,
                "a repaired index does not restart it"
            );
            assert_eq!(ring.incoming.used().unwrap_err(), error);
            ring.set_field(common::MASK, 7);
            assert_eq!(ring.incoming.unmask().unwrap_err(), error);
            ring.incoming.mask();
            assert_eq!(ring.field(common::MASK), 7, "a stopped ring is not touched");
            assert_eq!(ring.incoming.stopped(), Some(error));
        }
    }
}

/// Checklist 59, for the writer.
#[test]
fn test_ring_bad_read_index_stops_the_writer_for_good() {
    for mode in BOTH_MODES {
        for value in [4096, 4, u32::MAX] {
            let error = RingError::ReadIndex { value, data_size: 4096 };
            // The writer detects it when it needs space.
            let mut ring = ring(1, mode);
            ring.set_field(READ_INDEX, value);
            assert_eq!(ring.outgoing.free().unwrap_err(), error);
            assert_eq!(ring.outgoing.batch().map(|_| ()).unwrap_err(), error);
            assert_eq!(ring.outgoing.wait_for_space(24).unwrap_err(), error);
            // The commit detects it when it decides about a signal.
            let mut ring = common::ring(1, mode);
            ring.set_field(READ_INDEX, value);
            assert_eq!(write_one(&mut ring.outgoing, 1, &[0; 16]), Ok(false));
            assert_eq!(write_one(&mut ring.outgoing, 1, &[0; 16]), Err(WriteError::Corrupt(error)));
            // A wait detects it, and no later call leaves a wait request in the ring.
            let mut ring = common::ring(1, mode);
            ring.set_field(READ_INDEX, value);
            assert_eq!(ring.outgoing.wait_for_space(24).unwrap_err(), error);
            ring.set_field(common::PENDING, 99);
            ring.outgoing.space_came();
            assert_eq!(ring.field(common::PENDING), 99, "a stopped ring is not touched");
        }
    }
}

/// Checklist 59: the error is detected when the ring is opened.
#[test]
fn test_ring_opened_with_bad_indices_is_refused() {
    let ring = ring(1, common::BOTH_MODES[0]);
    let map = || ring.memory.ring(&ring.pages, common::BOTH_MODES[0]).unwrap();
    ring.set_field(READ_INDEX, 4096);
    assert!(matches!(Incoming::new(map()), Err(RingError::ReadIndex { value: 4096, .. })));
    assert!(matches!(Outgoing::new(map()), Err(RingError::ReadIndex { value: 4096, .. })));
    ring.set_field(READ_INDEX, 0);
    ring.set_field(WRITE_INDEX, 3);
    assert!(matches!(Incoming::new(map()), Err(RingError::WriteIndex { value: 3, .. })));
    assert!(matches!(Outgoing::new(map()), Err(RingError::WriteIndex { value: 3, .. })));
}

/// Checklist 60, through the ring: packets before the bad one count as read only if they were
/// committed before.
#[test]
fn test_ring_bad_descriptor_stops_the_channel() {
    let word =
        |kind: u64, data_offset8: u64, length8: u64| kind | data_offset8 << 16 | length8 << 32;
    for mode in BOTH_MODES {
        for (first, error) in [
            (word(6, 2, 0), RingError::ShortPacket { length: 0 }),
            (word(6, 2, 1), RingError::ShortPacket { length: 8 }),
            (word(6, 1, 4), RingError::DataOffset { data_offset: 8, length: 32 }),
            (word(6, 5, 4), RingError::DataOffset { data_offset: 40, length: 32 }),
            (word(6, 2, 5), RingError::LongPacket { length: 40, available: 40 }),
            (word(6, 2, 0xFFFF), RingError::LongPacket { length: 0xFFFF * 8, available: 40 }),
            (word(8, 2, 4), RingError::PacketType { value: 8 }),
            (0, RingError::ShortPacket { length: 0 }),
        ] {
            let mut ring = ring(1, mode);
            write_one(&mut ring.outgoing, 1, &[1; 16]).unwrap();
            write_one(&mut ring.outgoing, 2, &[2; 16]).unwrap();
            ring.set_word(40, first);
            let mut batch = ring.incoming.batch().unwrap();
            assert_eq!(batch.next().unwrap().unwrap().transaction_id(), 1);
            assert_eq!(batch.next().map(|_| ()).unwrap_err(), error);
            assert!(batch.next().unwrap().is_none());
            assert!(!batch.commit());
            assert_eq!(ring.field(READ_INDEX), 0, "a stopped ring is not touched");
            assert_eq!(ring.incoming.batch().map(|_| ()).unwrap_err(), error);
        }
        let mut ring = ring(1, mode);
        ring.set_field(WRITE_INDEX, 8);
        let mut batch = ring.incoming.batch().unwrap();
        assert_eq!(batch.next().map(|_| ()).unwrap_err(), RingError::NoDescriptor { available: 8 });
    }
}

/// Checklist 62.
#[test]
fn test_ring_full_leaves_one_unit_free() {
    for mode in BOTH_MODES {
        for start in (0..4096).step_by(8) {
            let mut ring = ring(1, mode);
            ring.advance_to(start);
            // 4088 bytes in all: free space (4096) is larger, and 8 bytes stay free.
            write_one(&mut ring.outgoing, 1, &[9; 4088 - 24]).unwrap();
            assert_eq!(ring.outgoing.free(), Ok(8));
            assert_eq!(ring.incoming.used(), Ok(4088));
            assert_eq!(write_one(&mut ring.outgoing, 2, &[]), Err(WriteError::Full { needed: 24 }));
            assert_eq!(drain(&mut ring.incoming).unwrap().0[0].payload, vec![9; 4088 - 24]);
        }
        // Free space of exactly the packet's length is not enough.
        let mut ring = ring(1, mode);
        write_one(&mut ring.outgoing, 1, &vec![0; 4096 - 48 - 24]).unwrap();
        assert_eq!(ring.outgoing.free(), Ok(48));
        assert_eq!(
            write_one(&mut ring.outgoing, 2, &[0; 24]),
            Err(WriteError::Full { needed: 48 })
        );
        assert_eq!(write_one(&mut ring.outgoing, 2, &[0; 16]), Ok(false));
    }
}

/// Checklist 70, and the largest packet that a ring can hold.
#[test]
fn test_ring_packet_beyond_a_limit_is_refused_and_never_written() {
    for mode in BOTH_MODES {
        let mut ring = ring(1, mode);
        assert_eq!(
            write_one(&mut ring.outgoing, 1, &[0; 4065]),
            Err(WriteError::TooBig { length: 4088, limit: 4080 })
        );
        write_one(&mut ring.outgoing, 1, &[0; 4064]).unwrap();
        drain(&mut ring.incoming).unwrap();
        ring.outgoing.limit_packets(vmbus_ring::limits::LINUX_STORAGE_PACKET_BYTES);
        write_one(&mut ring.outgoing, 1, &[0; 64]).unwrap();
        let before = ring.field(WRITE_INDEX);
        assert_eq!(
            write_one(&mut ring.outgoing, 1, &[0; 65]),
            Err(WriteError::TooBig { length: 88, limit: 80 })
        );
        assert_eq!(ring.field(WRITE_INDEX), before);
    }
    // The length field of the wire can state at most 524,280 bytes.
    let mut ring = ring(256, BOTH_MODES[0]);
    let most = vmbus_ring::limits::MAX_PACKET_BYTES;
    let payload = vec![3; most as usize - 16 + 1];
    assert_eq!(
        write_one(&mut ring.outgoing, 1, &payload),
        Err(WriteError::TooBig { length: most + 8, limit: most })
    );
    write_one(&mut ring.outgoing, 1, &payload[1..]).unwrap();
    assert_eq!(drain(&mut ring.incoming).unwrap().0[0].payload, payload[1..]);
}

#[test]
fn test_ring_batch_dropped_without_commit_leaves_no_trace() {
    for mode in BOTH_MODES {
        let mut ring = ring(1, mode);
        ring.outgoing.batch().unwrap().write(&OutPacket::in_band(1, &[&[1; 100]])).unwrap();
        assert_eq!(ring.field(WRITE_INDEX), 0);
        assert!(drain(&mut ring.incoming).unwrap().0.is_empty());
        write_one(&mut ring.outgoing, 2, &[2; 8]).unwrap();
        for _ in 0..2 {
            let mut batch = ring.incoming.batch().unwrap();
            assert_eq!(
                batch.next().unwrap().unwrap().transaction_id(),
                2,
                "a dropped batch is read again"
            );
        }
        assert_eq!(ring.field(READ_INDEX), 0);
        assert_eq!(drain(&mut ring.incoming).unwrap().0.len(), 1);
        assert_eq!(ring.field(READ_INDEX), 32);
    }
}

#[test]
fn test_ring_write_batch_that_fills_up_keeps_what_fitted() {
    for mode in BOTH_MODES {
        let mut ring = ring(1, mode);
        let mut batch = ring.outgoing.batch().unwrap();
        let mut written = 0;
        while batch.write(&OutPacket::completion(written, &[&[7; 100]])).is_ok() {
            written += 1;
        }
        assert_eq!(written, 4088 / 128);
        assert!(batch.commit());
        let (seen, _) = drain(&mut ring.incoming).unwrap();
        assert_eq!(seen.len() as u64, written);
        for (n, packet) in seen.iter().enumerate() {
            assert_eq!((packet.transaction_id, packet.kind), (n as u64, PacketKind::Completion));
            assert!(!packet.completion_requested);
        }
    }
}
