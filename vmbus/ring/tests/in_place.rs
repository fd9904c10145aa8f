//! Packets that are filled in place, and batches that are consumed in part.

use std::io::Write;

use vm_memory::{ReadVolatile, WriteVolatile};
use vmbus_ring::{Incoming, Mode, OutPacket, Outgoing, PlainMemory, WriteBatch, WriteError};

/// A ring of a control page and two pages of data, seen by both ends.
fn ends(mode: Mode) -> (Outgoing, Incoming) {
    let memory = PlainMemory::new(3).unwrap();
    let ring = |pages| memory.ring_at(0, pages, mode).unwrap();
    ring(3).reset();
    (Outgoing::new(ring(3)).unwrap(), Incoming::new(ring(3)).unwrap())
}

fn fill(batch: &WriteBatch<'_>, skip: u32, offset: u32, mut bytes: &[u8]) -> usize {
    let mut filled = 0;
    for mut piece in batch.unwritten(skip, offset, bytes.len() as u32) {
        filled += bytes.read_volatile(&mut piece).unwrap();
    }
    filled
}

/// At every position of a ring, and in both modes: two packets that are planned together, of which
/// the second becomes shorter than planned.
#[test]
fn test_ring_packets_filled_in_place_arrive_at_each_position() {
    for mode in [Mode::Mirrored, Mode::Paged] {
        let (mut outgoing, mut incoming) = ends(mode);
        for round in 0..1100_u32 {
            let (long, short) = (1000 + round as usize % 9, 1 + round as usize % 500);
            let one: Vec<u8> = (0..long).map(|byte| (byte as u32 + round) as u8).collect();
            let two: Vec<u8> = (0..700).map(|byte| (byte as u32 * 3 + round) as u8).collect();
            let mut batch = outgoing.batch().unwrap();
            batch.free().unwrap();
            let second = WriteBatch::in_band_total(8 + long as u32).unwrap();
            assert_eq!(fill(&batch, 0, 8, &one), long);
            assert_eq!(fill(&batch, second, 8, &two), 700);
            batch.write_in_place(&[1; 8], long as u32).unwrap();
            batch.write_in_place(&[2; 8], short as u32).unwrap();
            let _ = batch.commit();

            let mut batch = incoming.batch().unwrap();
            for (head, bytes) in [(1, &one[..]), (2, &two[..short])] {
                let packet = batch.next().unwrap().unwrap();
                let mut expected = vec![head; 8];
                expected.write_all(bytes).unwrap();
                expected.resize(expected.len().next_multiple_of(8), 0);
                assert_eq!((packet.payload(), packet.transaction_id()), (expected, 0), "{round}");
                let mut pieces = Vec::new();
                for piece in packet.payload_slices() {
                    pieces.write_all_volatile(&piece).unwrap();
                }
                assert_eq!(pieces, packet.payload());
            }
            let _ = batch.commit();
        }
    }
}

#[test]
fn test_ring_space_that_is_not_free_is_not_handed_out() {
    let (mut outgoing, _incoming) = ends(Mode::Mirrored);
    let mut batch = outgoing.batch().unwrap();
    let free = batch.free().unwrap();
    assert_eq!(free, 8192);
    assert!(batch.unwritten(0, 0, free - 16).next().is_none(), "the unit that stays free");
    assert!(batch.unwritten(0, 0, free - 24).next().is_some());
    assert!(batch.unwritten(4, 0, 8).next().is_none(), "not at a unit");
    assert!(batch.unwritten(u32::MAX - 7, 0, 8).next().is_none(), "overflow");
    assert_eq!(
        batch.write_in_place(&[0; 8], free - 32),
        Err(WriteError::TooBig { length: free - 8, limit: free - 16 })
    );
    assert!(matches!(batch.write_in_place(&[0; 4], 0), Err(WriteError::TooBig { .. })));
    assert!(matches!(batch.write_in_place(&[], u32::MAX), Err(WriteError::TooBig { .. })));
    batch.write_in_place(&[0; 8], 4096).unwrap();
    let needed = WriteBatch::in_band_total(8 + 4096).unwrap();
    assert_eq!(batch.write_in_place(&[0; 8], 4096), Err(WriteError::Full { needed }));
}

#[test]
fn test_ring_batch_committed_at_a_position_consumes_the_packets_before_it() {
    let (mut outgoing, mut incoming) = ends(Mode::Mirrored);
    let mut batch = outgoing.batch().unwrap();
    for id in 0..3 {
        batch.write(&OutPacket::in_band(id, &[&[0; 16]])).unwrap();
    }
    let _ = batch.commit();
    let mut batch = incoming.batch().unwrap();
    batch.next().unwrap().unwrap();
    let position = batch.position();
    batch.next().unwrap().unwrap();
    let _ = batch.commit_at(position);
    let mut batch = incoming.batch().unwrap();
    let start = batch.position();
    assert_eq!(batch.next().unwrap().unwrap().transaction_id(), 1);
    assert!(!batch.commit_at(start), "nothing is consumed");
    assert_eq!(incoming.batch().unwrap().next().unwrap().unwrap().transaction_id(), 1);
}
