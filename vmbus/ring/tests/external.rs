//! GPA-direct and transfer-page packets (vmbus-core 6.3; checklist 72).

mod common;

use common::{BOTH_MODES, TestRing, ring_in};
use vmbus_gpadl::{GuestBuffer, RangeError};
use vmbus_protocol::limits::{MAX_GPA_DIRECT_BYTES, MAX_GPA_DIRECT_RANGES};
use vmbus_ring::{
    GpaRange, Mode, OutPacket, PacketError, PacketKind, PlainMemory, TransferRange,
    gpa_direct_header, transfer_pages_header,
};

/// Pages of RAM behind the rings of these tests. The ring takes the first ones.
const RAM_PAGES: usize = 256;

fn ring(mode: Mode, data_pages: u64) -> TestRing {
    ring_in(PlainMemory::new(RAM_PAGES).unwrap(), (0..=data_pages).collect(), mode)
}

fn send(ring: &mut TestRing, kind: PacketKind, header: &[u8], payload: &[u8]) {
    let mut batch = ring.outgoing.batch().unwrap();
    batch.write(&OutPacket::request(77, &[payload]).with_header(kind, header)).unwrap();
    let _ = batch.commit();
}

/// Sends `header` unchanged and parses it.
fn parse(ring: &mut TestRing, header: &[u8], buffer: &mut GuestBuffer) -> Result<(), PacketError> {
    send(ring, PacketKind::GpaDirect, header, &[0xAB; 48]);
    let mut batch = ring.incoming.batch().unwrap();
    let packet = batch.next().unwrap().unwrap();
    assert_eq!(packet.kind(), PacketKind::GpaDirect);
    assert_eq!((packet.payload_len(), packet.read::<[u8; 48]>()), (48, Some([0xAB; 48])));
    let parsed = packet.gpa_direct(buffer);
    let _ = batch.commit();
    parsed
}

fn header(ranges: &[GpaRange<'_>]) -> Vec<u8> {
    let mut header = Vec::new();
    gpa_direct_header(ranges, &mut header);
    header
}

#[test]
fn test_ring_gpa_direct_of_many_ranges_and_pages_is_parsed_at_every_wrap() {
    for mode in BOTH_MODES {
        let mut ring = ring(mode, 1);
        let mut buffer = GuestBuffer::new(ring.memory.ram().clone());
        let pages: Vec<u64> = (0..100).map(|n| 255 - n).collect();
        let ranges = [
            GpaRange { byte_count: 5000, byte_offset: 100, pages: &[200, 7] },
            GpaRange { byte_count: 1, byte_offset: 4095, pages: &[9] },
            GpaRange { byte_count: 100 * 4096 - 17, byte_offset: 17, pages: &pages },
            GpaRange { byte_count: 4096, byte_offset: 0, pages: &[9] },
        ];
        let header = header(&ranges);
        for start in (0..4096).step_by(8) {
            ring.advance_to(start);
            parse(&mut ring, &header, &mut buffer).unwrap();
            assert_eq!((buffer.ranges(), buffer.pages()), (4, 104));
            assert_eq!(buffer.len(), 5000 + 1 + 100 * 4096 - 17 + 4096);
            let listed: Vec<u64> = ranges.iter().flat_map(|range| range.pages.to_vec()).collect();
            assert_eq!(buffer.guest_pages().collect::<Vec<_>>(), listed);
            for (n, range) in ranges.iter().enumerate() {
                assert_eq!(
                    buffer.range(n),
                    Some((range.byte_offset as usize, range.byte_count as usize))
                );
            }
        }
    }
}

#[test]
fn test_ring_gpa_direct_garbage_in_reserved_field_is_accepted() {
    let mut ring = ring(Mode::Mirrored, 1);
    let mut buffer = GuestBuffer::new(ring.memory.ram().clone());
    let mut header = header(&[GpaRange { byte_count: 8, byte_offset: 0, pages: &[3] }]);
    header[..4].copy_from_slice(&[0xFF; 4]);
    assert_eq!(parse(&mut ring, &header, &mut buffer), Ok(()));
    // Words after the last range are ignored.
    header.extend([0xFF; 24]);
    assert_eq!(parse(&mut ring, &header, &mut buffer), Ok(()));
    assert_eq!(buffer.len(), 8);
}

/// Checklist 72. Each failure leaves the ring usable and the buffer empty.
#[test]
fn test_ring_gpa_direct_bad_lists_fail_the_packet_and_not_the_ring() {
    for mode in BOTH_MODES {
        let mut ring = ring(mode, 8);
        let mut buffer = GuestBuffer::new(ring.memory.ram().clone());
        let good = header(&[GpaRange { byte_count: 8192, byte_offset: 0, pages: &[3, 4] }]);
        let with_count = |count: u32| {
            let mut header = good.clone();
            header[4..8].copy_from_slice(&count.to_le_bytes());
            header
        };
        let range = |byte_count, byte_offset, pages: &[u64]| {
            header(&[GpaRange { byte_count, byte_offset, pages }])
        };
        let cases = [
            (with_count(0), PacketError::RangeCount { count: 0, limit: MAX_GPA_DIRECT_RANGES }),
            (with_count(513), PacketError::RangeCount { count: 513, limit: MAX_GPA_DIRECT_RANGES }),
            (
                with_count(u32::MAX),
                PacketError::RangeCount { count: u32::MAX, limit: MAX_GPA_DIRECT_RANGES },
            ),
            (with_count(4), PacketError::Range(RangeError::Size { bytes: 24, ranges: 4 })),
            (good[..8].to_vec(), PacketError::Range(RangeError::Size { bytes: 0, ranges: 1 })),
            (Vec::new(), PacketError::ShortHeader { header: 16 }),
            (range(0, 0, &[3]), PacketError::Range(RangeError::Empty)),
            (range(8, 4096, &[3]), PacketError::Range(RangeError::Offset(4096))),
            (
                range(8, 0, &[RAM_PAGES as u64]),
                PacketError::Range(RangeError::NotRam(RAM_PAGES as u64)),
            ),
            (range(8, 0, &[u64::MAX]), PacketError::Range(RangeError::NotRam(u64::MAX))),
            (
                range(u32::MAX, 1, &[3]),
                PacketError::Range(RangeError::Overflow { offset: 1, count: u32::MAX }),
            ),
        ];
        for (header, error) in cases {
            assert_eq!(parse(&mut ring, &good, &mut buffer), Ok(()));
            assert_eq!(parse(&mut ring, &header, &mut buffer), Err(error));
            assert!(buffer.is_empty());
        }
        // More bytes than there are pages for: the list is too short for any words.
        for header in [
            range(8193, 0, &[3, 4]),
            range(8192, 1, &[3, 4]),
            range(u32::MAX, 0, &[3]),
            with_count(2),
        ] {
            assert!(
                matches!(parse(&mut ring, &header, &mut buffer), Err(PacketError::Range(_))),
                "{header:?}"
            );
            assert!(buffer.is_empty());
        }
        assert_eq!(ring.incoming.stopped(), None);
    }
}

#[test]
fn test_ring_gpa_direct_at_the_byte_limit_passes_and_one_past_it_fails() {
    let mut ring = ring(Mode::Mirrored, 64);
    let mut buffer = GuestBuffer::new(ring.memory.ram().clone());
    let pages = vec![5_u64; MAX_GPA_DIRECT_BYTES as usize / 4096 + 1];
    let most = header(&[GpaRange {
        byte_count: MAX_GPA_DIRECT_BYTES as u32,
        byte_offset: 0,
        pages: &pages[1..],
    }]);
    assert_eq!(parse(&mut ring, &most, &mut buffer), Ok(()));
    assert_eq!(buffer.len() as u64, MAX_GPA_DIRECT_BYTES);
    let more = header(&[GpaRange {
        byte_count: MAX_GPA_DIRECT_BYTES as u32 + 1,
        byte_offset: 0,
        pages: &pages,
    }]);
    assert_eq!(
        parse(&mut ring, &more, &mut buffer),
        Err(PacketError::TooManyBytes { limit: MAX_GPA_DIRECT_BYTES })
    );
    let two = [
        GpaRange { byte_count: MAX_GPA_DIRECT_BYTES as u32, byte_offset: 0, pages: &pages[1..] },
        GpaRange { byte_count: 1, byte_offset: 0, pages: &pages[..1] },
    ];
    assert_eq!(
        parse(&mut ring, &header(&two), &mut buffer),
        Err(PacketError::TooManyBytes { limit: MAX_GPA_DIRECT_BYTES })
    );
}

#[test]
fn test_ring_gpa_direct_at_the_range_limit_passes() {
    let mut ring = ring(Mode::Paged, 4);
    let mut buffer = GuestBuffer::new(ring.memory.ram().clone());
    let one = GpaRange { byte_count: 1, byte_offset: 0, pages: &[5] };
    let most = vec![one; MAX_GPA_DIRECT_RANGES as usize];
    assert_eq!(parse(&mut ring, &header(&most), &mut buffer), Ok(()));
    assert_eq!((buffer.ranges(), buffer.len()), (512, 512));
    let more = vec![one; MAX_GPA_DIRECT_RANGES as usize + 1];
    assert!(matches!(
        parse(&mut ring, &header(&more), &mut buffer),
        Err(PacketError::RangeCount { count: 513, .. })
    ));
}

#[test]
fn test_ring_transfer_pages_round_trip_at_every_wrap() {
    for mode in BOTH_MODES {
        let mut ring = ring(mode, 1);
        let sent: Vec<_> = (0..9)
            .map(|n| TransferRange { byte_count: 1500 + n, byte_offset: n * 0x700 })
            .collect();
        let mut header = Vec::new();
        transfer_pages_header(0xCAFE, &sent, &mut header);
        let mut seen = Vec::new();
        for start in (0..4096).step_by(8) {
            ring.advance_to(start);
            send(&mut ring, PacketKind::TransferPages, &header, &[1; 40]);
            let mut batch = ring.incoming.batch().unwrap();
            let packet = batch.next().unwrap().unwrap();
            assert_eq!(packet.transfer_pages(&mut seen), Ok(0xCAFE));
            assert_eq!(seen, sent);
            let mut buffer = GuestBuffer::new(ring.memory.ram().clone());
            assert_eq!(packet.gpa_direct(&mut buffer), Err(PacketError::NoExternalData));
            let _ = batch.commit();
        }
    }
}

#[test]
fn test_ring_transfer_pages_with_a_false_count_fail_the_packet() {
    let mut ring = ring(Mode::Mirrored, 1);
    let mut header = Vec::new();
    transfer_pages_header(1, &[TransferRange::default(); 3], &mut header);
    let mut seen = Vec::new();
    for (count, error) in [
        (0, PacketError::RangeCount { count: 0, limit: u32::MAX }),
        (4, PacketError::RangeList),
        (u32::MAX, PacketError::RangeList),
    ] {
        header[4..8].copy_from_slice(&u32::to_le_bytes(count));
        send(&mut ring, PacketKind::TransferPages, &header, &[]);
        let mut batch = ring.incoming.batch().unwrap();
        assert_eq!(batch.next().unwrap().unwrap().transfer_pages(&mut seen), Err(error));
        assert!(seen.is_empty());
        let _ = batch.commit();
    }
}
