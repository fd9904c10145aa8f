//! UNMAP, WRITE SAME, GET LBA STATUS, VERIFY and persistent reservations.

use super::*;
use synthvm_block::Extent;

const DISCARD: Discard = Discard { granularity: 65536, zeroes: true };

fn thin() -> Disk {
    disk_of(Geometry { discard: Some(DISCARD), ..geometry() })
}

fn blocks(lba: u64, count: u64) -> Range {
    Range { offset: lba * 512, length: count * 512 }
}

/// Runs a command with a parameter list.
fn send(disk: &Disk, bytes: &[u8], list: &[u8]) -> Result<Decision, CheckCondition> {
    match run(disk, bytes, Transfer::ToDisk(list.len() as u32))?.0 {
        Decision::Parameters(parameters) => {
            disk.parameters(parameters, &list[..parameters.length()])
        }
        other => Ok(other),
    }
}

fn sense(result: Result<Decision, CheckCondition>) -> Sense {
    result.unwrap_err().sense
}

fn unmap_list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let descriptors = ranges.len() * 16;
    let mut list = Vec::new();
    list.extend_from_slice(&(descriptors as u16 + 6).to_be_bytes());
    list.extend_from_slice(&(descriptors as u16).to_be_bytes());
    list.extend_from_slice(&[0; 4]);
    for (lba, count) in ranges {
        list.extend_from_slice(&lba.to_be_bytes());
        list.extend_from_slice(&count.to_be_bytes());
        list.extend_from_slice(&[0; 4]);
    }
    list
}

fn unmap(disk: &Disk, list: &[u8]) -> Result<Decision, CheckCondition> {
    let length = (list.len() as u16).to_be_bytes();
    send(disk, &[0x42, 0, 0, 0, 0, 0, 0, length[0], length[1], 0], list)
}

// Checklist 35.
#[test]
fn test_unmap_none_one_and_as_many_descriptors_as_a_list_holds() {
    let disk = thin();
    assert_eq!(unmap(&disk, &[]), Ok(Decision::Good));
    assert_eq!(unmap(&disk, &unmap_list(&[])), Ok(Decision::Good));
    assert_eq!(unmap(&disk, &unmap_list(&[(5, 0)])), Ok(Decision::Good));
    let one = Decision::Io(Io { operation: Operation::Discard, range: blocks(5, 3) });
    assert_eq!(unmap(&disk, &unmap_list(&[(5, 3)])), Ok(one.clone()));
    assert_eq!(unmap(&disk, &unmap_list(&[(9, 0), (5, 3)])), Ok(one));
    let most: Vec<_> = (0..4095).map(|index| (index * 2, 1)).collect();
    let Ok(Decision::Job(job)) = unmap(&disk, &unmap_list(&most)) else { panic!("not a job") };
    let ranges: Vec<_> = most.iter().map(|&(lba, count)| blocks(lba, count.into())).collect();
    assert_eq!(*job, Job::Discard(ranges));
    // One more descriptor does not fit: the length has 16 bits. Page 0xB0 states the limit.
    assert_eq!(data(&disk, &[0x12, 1, 0xB0, 0, 64, 0], 64)[24..28], 4095_u32.to_be_bytes());
}

// Checklist 35.
#[test]
fn test_unmap_lists_that_do_not_add_up_or_leave_the_disk_discard_nothing() {
    let disk = thin();
    let good = unmap_list(&[(0, 8), (16, 8)]);
    for length in 1..8 {
        assert_eq!(
            sense(unmap(&disk, &good[..length])),
            Sense::PARAMETER_LIST_LENGTH,
            "{length} bytes"
        );
    }
    // A descriptor that the end of the list, or the length in it, cuts short is ignored (SBC-3
    // section 5.30.2).
    let one = Ok(Decision::Io(Io { operation: Operation::Discard, range: blocks(0, 8) }));
    let both = Job::Discard(vec![blocks(0, 8), blocks(16, 8)]);
    let both = Ok(Decision::Job(Box::new(both)));
    for length in 8..good.len() {
        let wanted = if length < 24 { &Ok(Decision::Good) } else { &one };
        assert_eq!(unmap(&disk, &good[..length]), *wanted, "{length} bytes");
    }
    for (stated, wanted) in
        [(0, &Ok(Decision::Good)), (15, &Ok(Decision::Good)), (16, &one), (31, &one), (255, &both)]
    {
        let mut list = good.clone();
        list[3] = stated;
        assert_eq!(unmap(&disk, &list), *wanted, "{stated} bytes stated");
    }
    // UNMAP DATA LENGTH does not change that.
    let mut list = good.clone();
    list[..2].fill(0);
    assert_eq!(unmap(&disk, &list), both);
    let end = 64 * MIB / 512;
    for bad in [(end, 1), (end - 1, 2), (u64::MAX, 1), (u64::MAX, u32::MAX), (end + 1, 0)] {
        assert_eq!(sense(unmap(&disk, &unmap_list(&[(0, 8), bad]))), Sense::LBA_OUT_OF_RANGE);
    }
    // ANCHOR; a list longer than the buffer; data in the other direction.
    assert_eq!(
        failure(&disk, &[0x42, 1, 0, 0, 0, 0, 0, 0, 24, 0], Transfer::ToDisk(24)),
        INVALID_FIELD
    );
    assert_eq!(
        failure(&disk, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], Transfer::ToDisk(23)),
        INVALID_FIELD
    );
    assert_eq!(
        failure(&disk, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], Transfer::ToGuest(24)),
        INVALID_FIELD
    );
    let read_only = disk_of(Geometry { read_only: true, discard: Some(DISCARD), ..geometry() });
    assert_eq!(sense(unmap(&read_only, &unmap_list(&[(0, 8)]))), Sense::WRITE_PROTECTED);
}

/// Returns (LBPME and LBPRZ, block limits from byte 20 to 35, provisioning page).
fn provisioning(disk: &Disk) -> (u8, Vec<u8>, Vec<u8>) {
    let mut rc16 = [0; 16];
    rc16[..2].copy_from_slice(&[0x9E, 0x10]);
    rc16[13] = 32;
    let limits = data(disk, &[0x12, 1, 0xB0, 0, 64, 0], 64)[20..36].to_vec();
    (data(disk, &rc16, 32)[14], limits, data(disk, &[0x12, 1, 0xB2, 0, 8, 0], 8)[4..].to_vec())
}

#[test]
fn test_provisioning_is_reported_as_the_backend_has_it() {
    let limits = |granularity: u32| {
        [u32::MAX, 4095, granularity, 0x8000_0000]
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect::<Vec<_>>()
    };
    let none = disk();
    assert_eq!(provisioning(&none), (0, vec![0; 16], vec![1, 0, 0, 0]));
    assert_eq!(provisioning(&thin()), (0xC0, limits(128), vec![1, 0xE4, 2, 0]));
    let vague = Discard { granularity: 512, zeroes: false };
    let vague = disk_of(Geometry { discard: Some(vague), ..geometry() });
    assert_eq!(provisioning(&vague), (0x80, limits(1), vec![1, 0xE0, 2, 0]));
    let native =
        disk_of(Geometry { discard: Some(DISCARD), block_size: BlockSize::B4096, ..geometry() });
    assert_eq!(provisioning(&native).1, limits(16));
    let huge = disk_of(Geometry { discard: Some(DISCARD), capacity: 8 << 40, ..geometry() });
    assert_eq!(provisioning(&huge).2[0], 2);
}

fn write_same_16(flags: u8, lba: u64, count: u32) -> [u8; 16] {
    rw16(0x93, flags, lba, count)
}

// Checklist 36.
#[test]
fn test_write_same_zeroes_are_one_request_and_other_blocks_are_written() {
    let disk = thin();
    let zero = |unmap| {
        Ok(Decision::Io(Io { operation: Operation::WriteZeroes { unmap }, range: blocks(7, 100) }))
    };
    let (zeroes, ones) = ([0; 512], [1; 512]);
    let fill = |range| Ok(Decision::Job(Box::new(Job::Fill { range, block: ones.into() })));
    let ten = [0x41, 0, 0, 0, 0, 7, 0, 0, 100, 0];
    assert_eq!(send(&disk, &ten, &zeroes), zero(false));
    assert_eq!(send(&disk, &ten, &ones), fill(blocks(7, 100)));
    assert_eq!(send(&disk, &[0x41, 8, 0, 0, 0, 7, 0, 0, 100, 0], &zeroes), zero(true));
    assert_eq!(send(&disk, &write_same_16(0, 7, 100), &zeroes), zero(false));
    assert_eq!(send(&disk, &write_same_16(8, 7, 100), &zeroes), zero(true));
    // A block that differs from the content of unmapped blocks is written.
    assert_eq!(send(&disk, &write_same_16(8, 7, 100), &ones), fill(blocks(7, 100)));
    assert_eq!(send(&disk, &write_same_16(1, 7, 100), &[]), zero(false));
    assert_eq!(send(&disk, &write_same_16(9, 7, 100), &[]), zero(true));
    let mut last = zeroes;
    last[511] = 1;
    assert!(matches!(send(&disk, &write_same_16(8, 0, 1), &last), Ok(Decision::Job(_))));
}

// Checklist 36.
#[test]
fn test_write_same_limits_and_bits_that_are_not_offered() {
    let disk = thin();
    let most = 32 * MIB / 512;
    assert!(send(&disk, &write_same_16(1, 0, most as u32), &[]).is_ok());
    for count in [0, most as u32 + 1, u32::MAX] {
        assert_eq!(
            sense(send(&disk, &write_same_16(1, 0, count), &[])),
            Sense::INVALID_FIELD_IN_CDB
        );
    }
    assert_eq!(data(&disk, &[0x12, 1, 0xB0, 0, 64, 0], 64)[36..44], most.to_be_bytes());
    // ANCHOR, protection, and the obsolete LBDATA and PBDATA.
    for flags in [0x10, 0x18, 0x20, 0xE0, 0x02, 0x04] {
        assert_eq!(
            sense(send(&disk, &write_same_16(flags, 0, 1), &[0; 512])),
            Sense::INVALID_FIELD_IN_CDB
        );
    }
    // Bit 0 of the 10-byte form was RELADR.
    assert_eq!(
        sense(send(&disk, &[0x41, 1, 0, 0, 0, 0, 0, 0, 1, 0], &[0; 512])),
        Sense::INVALID_FIELD_IN_CDB
    );
    for length in [1, 511, 513, 1024] {
        let block = vec![0; length];
        assert_eq!(
            sense(send(&disk, &write_same_16(0, 0, 1), &block)),
            Sense::INVALID_FIELD_IN_CDB
        );
    }
    assert_eq!(failure(&disk, &write_same_16(0, 0, 1), Transfer::ToGuest(512)), INVALID_FIELD);
    let end = 64 * MIB / 512;
    for (lba, count) in [(end, 1), (end - 1, 2), (u64::MAX, 1)] {
        assert_eq!(sense(send(&disk, &write_same_16(1, lba, count), &[])), Sense::LBA_OUT_OF_RANGE);
    }
    assert_eq!(
        sense(send(&super::disk(), &write_same_16(8, 0, 1), &[0; 512])),
        Sense::INVALID_FIELD_IN_CDB
    );
    assert!(send(&super::disk(), &write_same_16(0, 0, 1), &[0; 512]).is_ok());
    assert_eq!(sense(send(&read_only(), &write_same_16(1, 0, 1), &[])), Sense::WRITE_PROTECTED);
}

#[test]
fn test_verify_compares_with_the_buffer_or_with_one_block() {
    let disk = disk();
    let compare = |range, expected, write| {
        Ok(Decision::Job(Box::new(Job::Compare { range, expected, write })))
    };
    let one = Expected::Block([3; 512].into());
    assert_eq!(
        send(&disk, &rw16(0x8F, 0x02, 4, 2), &[0; 1024]),
        compare(blocks(4, 2), Expected::Buffer, false)
    );
    assert_eq!(send(&disk, &rw16(0x8F, 0x06, 4, 2), &[3; 512]), compare(blocks(4, 2), one, false));
    assert_eq!(
        send(&disk, &rw16(0x8E, 0x02, 4, 2), &[0; 1024]),
        compare(blocks(4, 2), Expected::Buffer, true)
    );
    assert_eq!(send(&disk, &rw16(0x8F, 0x02, 4, 0), &[]), Ok(Decision::Good));
    assert_eq!(sense(send(&disk, &rw16(0x8F, 0x02, 4, 2), &[0; 1023])), Sense::LBA_OUT_OF_RANGE);
    assert_eq!(failure(&disk, &rw16(0x8F, 0x02, 4, 2), Transfer::ToGuest(1024)), INVALID_FIELD);
    assert_eq!(failure(&disk, &rw16(0x8F, 0x06, 4, 2), Transfer::None), INVALID_FIELD);
    let many = 32 * MIB as u32 / 512 + 1;
    assert_eq!(
        sense(send(&disk, &rw16(0x8F, 0x06, 0, many), &[0; 512])),
        Sense::INVALID_FIELD_IN_CDB
    );
    assert_eq!(
        sense(send(&read_only(), &rw16(0x8E, 0x02, 4, 2), &[0; 1024])),
        Sense::WRITE_PROTECTED
    );
    assert!(send(&read_only(), &rw16(0x8F, 0x02, 4, 2), &[0; 1024]).is_ok());
}

/// Returns the whole answer to GET LBA STATUS, over a disk with the given extents (end in bytes,
/// mapped).
fn raw_status(lba: u64, allocation: u32, extents: &[(u64, bool)]) -> Vec<u8> {
    let disk = thin();
    let bytes = rw16(0x9E, 0x12, lba, allocation);
    let (decision, _) = run(&disk, &bytes, Transfer::ToGuest(allocation)).unwrap();
    let Decision::LbaStatus(query) = decision else { panic!("{decision:?}") };
    let mut out = Vec::new();
    let extent = |offset| {
        let (end, mapped) = *extents.iter().find(|(end, _)| *end > offset).unwrap();
        Ok::<_, ()>(Extent { length: end - offset, mapped })
    };
    lba_status(query, BlockSize::B512, extent, &mut out).unwrap();
    out
}

/// Returns the descriptors of GET LBA STATUS from `lba` on, over a disk with the given extents (end
/// in bytes, mapped).
fn status(lba: u64, allocation: u32, extents: &[(u64, bool)]) -> Vec<(u64, u32, u8)> {
    let out = raw_status(lba, allocation, extents);
    assert_eq!(u32::from_be_bytes(out[..4].try_into().unwrap()) as usize, out.len() - 4);
    assert!(out.len() <= allocation as usize);
    let words = |at: usize, length: usize| {
        out[at..at + length].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
    };
    (8..out.len())
        .step_by(16)
        .map(|at| (words(at, 8), words(at + 8, 4) as u32, out[at + 12]))
        .collect()
}

#[test]
fn test_lba_status_rounds_to_blocks_merges_neighbours_and_stops_at_the_room() {
    let end = 64 * MIB;
    let all = (end / 512) as u32;
    assert_eq!(status(0, 4096, &[(end, true)]), [(0, all, 0)]);
    assert_eq!(status(10, 4096, &[(end, false)]), [(10, all - 10, 1)]);
    assert_eq!(status(0, 24, &[(4096, true), (end, false)]), [(0, 8, 0)]);
    assert_eq!(status(0, 40, &[(4096, true), (end, false)]), [(0, 8, 0), (8, all - 8, 1)]);
    // A block that is partly in use counts as in use, at either end.
    assert_eq!(status(0, 99, &[(1000, true), (end, false)]), [(0, 2, 0), (2, all - 2, 1)]);
    assert_eq!(status(0, 99, &[(1000, false), (end, true)]), [(0, 1, 1), (1, all - 1, 0)]);
    assert_eq!(status(0, 99, &[(100, false), (end, true)]), [(0, all, 0)]);
    assert_eq!(
        status(0, 99, &[(512, true), (1024, true), (end, false)]),
        [(0, 2, 0), (2, all - 2, 1)]
    );
    let disk = disk();
    let past = rw16(0x9E, 0x12, end / 512, 4096);
    assert_eq!(failure(&disk, &past, Transfer::ToGuest(4096)).0, Sense::LBA_OUT_OF_RANGE);
    assert_eq!(failure(&disk, &past, Transfer::None).0, Sense::LBA_OUT_OF_RANGE);
    assert_eq!(failure(&disk, &rw16(0x9E, 0x12, 0, 24), Transfer::None).1, Cause::DataOverrun);
    assert_eq!(
        failure(&disk, &rw16(0x9E, 0x12, 0, 24), Transfer::ToDisk(24)).1,
        Cause::DataOverrun
    );
}

#[test]
fn test_lba_status_allocation_below_one_descriptor_cuts_the_answer_and_is_no_error() {
    let end = 64 * MIB;
    let extents = [(4096, true), (end, false)];
    let whole = raw_status(3, 24, &extents);
    for allocation in 1..24 {
        assert_eq!(raw_status(3, allocation, &extents), whole[..allocation as usize]);
    }
    assert!(raw_status(3, 0, &extents).is_empty());
    assert_eq!(run(&thin(), &rw16(0x9E, 0x12, 3, 0), Transfer::None).unwrap().0, Decision::Good);
}

/// libiscsi's GetLBAStatus.UnmapSingle expects the first descriptor one physical block later where
/// a physical block has several logical ones, and reports the difference as a failure of the disk.
/// By SBC-3 (section 6.4.2) the descriptor begins at the block asked about.
#[test]
fn test_lba_status_begins_at_the_block_asked_about_also_within_a_physical_block() {
    let end = 64 * MIB;
    let all = (end / 512) as u32;
    assert_eq!(status(9, 24, &[(4096, false), (end, true)]), [(9, all - 9, 0)]);
    assert_eq!(status(3, 24, &[(4096, false), (end, true)]), [(3, 5, 1)]);
    assert_eq!(status(u64::from(all) - 1, 24, &[(end, true)]), [(u64::from(all) - 1, 1, 0)]);
}

#[test]
fn test_lba_status_says_why_it_ended() {
    let end = 64 * MIB;
    let extents = [(4096, true), (end, false)];
    let (by_allocation, by_capacity) = (1 << 1, 3 << 1);
    assert_eq!(raw_status(0, 24, &extents)[7], by_allocation);
    assert_eq!(raw_status(0, 40, &extents)[7], by_capacity);
    assert_eq!(raw_status(8, 24, &extents)[7], by_capacity);
    let many: Vec<_> = (1..=end / 512).map(|index| (index * 512, true)).collect();
    assert_eq!(raw_status(0, 40, &many)[7], 0, "the lookups were used up");
}

#[test]
fn test_lba_status_of_a_disk_without_provisioning_is_mapped_whatever_its_image_says() {
    let (decision, answer) =
        run(&disk(), &rw16(0x9E, 0x12, 16, 64), Transfer::ToGuest(64)).unwrap();
    assert_eq!(decision, Decision::Reply);
    let blocks = (64 * MIB / 512 - 16) as u32;
    assert_eq!(answer[..16], [0, 0, 0, 20, 0, 0, 0, 3 << 1, 0, 0, 0, 0, 0, 0, 0, 16]);
    assert_eq!(answer[16..], [&blocks.to_be_bytes()[..], &[0; 4]].concat());
}

#[test]
fn test_lba_status_of_more_blocks_than_a_descriptor_counts_takes_several() {
    let query = LbaQuery {
        range: Range { offset: 0, length: (5 << 32) * 512 },
        descriptors: 8,
        room: 4096,
    };
    let mut out = Vec::new();
    let extent = |offset| Ok::<_, ()>(Extent { length: (5 << 32) * 512 - offset, mapped: false });
    lba_status(query, BlockSize::B512, extent, &mut out).unwrap();
    assert_eq!(out.len(), 8 + 6 * 16);
    assert_eq!(out[24 + 7], 0xFF, "the second begins where the first ends");
}

#[test]
fn test_lba_status_has_no_more_than_256_descriptors_whatever_the_room() {
    let extents: Vec<_> = (1..=1000).map(|index| (index * 512, index % 2 == 0)).collect();
    let all = [&extents[..], &[(64 * MIB, true)]].concat();
    assert_eq!(status(0, 8 + 256 * 16, &all).len(), 256);
    assert_eq!(status(0, 8 + 257 * 16, &all).len(), 256);
    assert_eq!(status(0, 8 + 255 * 16, &all).len(), 255);
}

#[test]
fn test_lba_status_asks_no_more_often_than_twice_a_descriptor() {
    let query =
        LbaQuery { range: Range { offset: 0, length: 1 << 40 }, descriptors: 4, room: 4096 };
    let mut asked = 0;
    let extent = |_| {
        asked += 1;
        Ok::<_, ()>(Extent { length: 512, mapped: true })
    };
    let mut out = Vec::new();
    lba_status(query, BlockSize::B512, extent, &mut out).unwrap();
    assert_eq!((asked, out.len()), (8, 24));
}

fn reserve_out(
    disk: &Disk,
    action: u8,
    kind: u8,
    key: u8,
    new_key: u8,
) -> Result<Decision, CheckCondition> {
    let mut list = [0; 24];
    (list[7], list[15]) = (key, new_key);
    send(disk, &[0x5F, action, kind, 0, 0, 0, 0, 0, 24, 0], &list)
}

// Checklist 37.
#[test]
fn test_persistent_reserve_conflicts_are_a_status_and_resets_change_nothing() {
    let disk = disk();
    let good = Ok(Decision::Good);
    assert_eq!(reserve_out(&disk, 1, 1, 0, 0), Ok(Decision::Conflict));
    assert_eq!(reserve_out(&disk, 0, 0, 0, 0xA), good);
    assert_eq!(reserve_out(&disk, 1, 1, 0xA, 0), good);
    assert_eq!(reserve_out(&disk, 1, 3, 0xA, 0), Ok(Decision::Conflict));
    // The holder of the reservation can still write.
    assert!(run(&disk, &rw16(0x8A, 0, 0, 1), Transfer::ToDisk(512)).is_ok());
    assert!(run(&disk, &[0x16, 0, 0, 0, 0, 0], Transfer::None).is_ok());
    let keys = data(&disk, &[0x5E, 0, 0, 0, 0, 0, 0, 0, 255, 0], 255);
    assert_eq!((keys.len(), keys[3], keys[15]), (16, 1, 0xA));
    assert_eq!(data(&disk, &[0x5E, 0, 0, 0, 0, 0, 0, 0, 8, 0], 255), keys[..8]);
    assert_eq!(data(&disk, &[0x5E, 1, 0, 0, 0, 0, 0, 0, 255, 0], 255)[21], 1);
    assert_eq!(data(&disk, &[0x5E, 2, 0, 0, 0, 0, 0, 0, 255, 0], 255).len(), 8);
    assert_eq!(data(&disk, &[0x5E, 3, 0, 0, 0, 0, 0, 0, 255, 0], 255).len(), 56);
}

// Checklist 37.
#[test]
fn test_persistent_reserve_cdbs_that_are_wrong_are_refused() {
    let disk = disk();
    for (action, kind) in
        [(7, 1), (8, 1), (1, 0), (1, 2), (1, 4), (1, 9), (1, 0x11), (2, 0), (4, 2)]
    {
        assert_eq!(
            sense(reserve_out(&disk, action, kind, 0, 0)),
            Sense::INVALID_FIELD_IN_CDB,
            "{action} {kind}"
        );
    }
    assert_eq!(
        failure(&disk, &[0x5E, 4, 0, 0, 0, 0, 0, 0, 8, 0], Transfer::ToGuest(8)),
        INVALID_FIELD
    );
    for (length, transfer) in [
        (23, Transfer::ToDisk(24)),
        (25, Transfer::ToDisk(25)),
        (24, Transfer::ToDisk(23)),
        (24, Transfer::None),
    ] {
        let bytes = [0x5F, 0, 0, 0, 0, 0, 0, 0, length, 0];
        assert_eq!(failure(&disk, &bytes, transfer).0, Sense::PARAMETER_LIST_LENGTH);
    }
}
