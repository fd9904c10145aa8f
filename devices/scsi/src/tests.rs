//! Conformance checklist of the disk (spec storvsc section 12), and commands that users met beyond
//! it.

use super::*;
use crate::testing::Random;

mod mode;
mod provisioning;
mod table;

const MIB: u64 = 1 << 20;

fn geometry() -> Geometry {
    Geometry {
        capacity: 64 * MIB,
        block_size: BlockSize::B512,
        physical_block_size: 4096,
        read_only: false,
        write_cache: true,
        rotational: false,
        discard: None,
    }
}

fn disk_of(geometry: Geometry) -> Disk {
    named(DiskIdentity::derived(&[b"test"]), geometry)
}

fn named(identity: DiskIdentity, geometry: Geometry) -> Disk {
    Disk::new(identity, geometry, 1 << 20).unwrap()
}

fn disk() -> Disk {
    disk_of(geometry())
}

fn read_only() -> Disk {
    disk_of(Geometry { read_only: true, ..geometry() })
}

fn cdb(bytes: &[u8]) -> ([u8; 16], u8) {
    let mut cdb = [0; 16];
    cdb[..bytes.len()].copy_from_slice(bytes);
    (cdb, bytes.len() as u8)
}

/// Runs one command, with a buffer as long as `transfer` says.
fn run(
    disk: &Disk,
    bytes: &[u8],
    transfer: Transfer,
) -> Result<(Decision, Vec<u8>), CheckCondition> {
    let (cdb, length) = cdb(bytes);
    let mut out = Vec::new();
    let decision = disk.execute(Command::parse(&cdb, length)?, transfer, &mut out)?;
    Ok((decision, out))
}

/// Returns the data of a command that must succeed with data.
fn data(disk: &Disk, bytes: &[u8], room: u32) -> Vec<u8> {
    let (decision, data) = run(disk, bytes, Transfer::ToGuest(room)).unwrap();
    assert_eq!(decision, Decision::Reply);
    data
}

/// Returns (key, asc, ascq, cause) of a command that must fail.
fn failure(disk: &Disk, bytes: &[u8], transfer: Transfer) -> (Sense, Cause) {
    let error = run(disk, bytes, transfer).unwrap_err();
    (error.sense, error.cause)
}

const INVALID_FIELD: (Sense, Cause) = (Sense::INVALID_FIELD_IN_CDB, Cause::InvalidRequest);
const INVALID_OPCODE: (Sense, Cause) = (Sense::INVALID_OPCODE, Cause::InvalidRequest);

fn rw16(opcode: u8, flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[1] = flags;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

// Checklist 25.
#[test]
fn test_inquiry_any_allocation_returns_prefix_of_104_bytes() {
    let full = data(&disk(), &[0x12, 0, 0, 0, 255, 0], 255);
    assert_eq!(full.len(), 104);
    assert_eq!(full[4], 99);
    assert_eq!(&full[..4], &[0x00, 0x00, 0x05, 0x02]);
    assert_eq!(full[7], 0x02);
    assert_eq!(&full[8..36], b"Msft    Virtual Disk    1.0 ");
    for allocation in [0_u8, 5, 36, 96, 104] {
        let part = data(&disk(), &[0x12, 0, 0, 0, allocation, 0], 255);
        assert_eq!(part, full[..allocation.into()]);
    }
}

// Checklist 26.
#[test]
fn test_inquiry_cmddt_page_without_evpd_and_unknown_page_are_invalid_fields() {
    for bytes in
        [[0x12, 0x02, 0, 0, 36, 0], [0x12, 0x00, 0x83, 0, 36, 0], [0x12, 0x01, 0x42, 0, 36, 0]]
    {
        assert_eq!(failure(&disk(), &bytes, Transfer::ToGuest(36)), INVALID_FIELD);
    }
}

#[test]
fn test_inquiry_allocation_beyond_buffer_or_wrong_direction_is_invalid_field() {
    assert_eq!(failure(&disk(), &[0x12, 0, 0, 0, 36, 0], Transfer::ToGuest(35)), INVALID_FIELD);
    assert_eq!(failure(&disk(), &[0x12, 0, 0, 0, 36, 0], Transfer::ToDisk(36)), INVALID_FIELD);
    assert_eq!(failure(&disk(), &[0x12, 0, 0, 0, 36, 0], Transfer::None), INVALID_FIELD);
}

// Checklist 27.
#[test]
fn test_vpd_every_listed_page_reads_with_4_bytes_and_in_full() {
    let disk = disk();
    let list = data(&disk, &[0x12, 1, 0, 0, 255, 0], 255);
    let pages = &list[4..];
    assert_eq!(usize::from(list[3]), pages.len());
    assert!(pages.is_sorted());
    for page in [0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2] {
        assert!(pages.contains(&page), "page {page:#x} is not listed");
    }
    for &page in pages {
        let head = data(&disk, &[0x12, 1, page, 0, 4, 0], 4);
        let full = data(&disk, &[0x12, 1, page, 1, 0, 0], 256);
        assert_eq!(head, full[..4]);
        assert_eq!(full[..2], [0, page]);
        assert_eq!(usize::from(u16::from_be_bytes([full[2], full[3]])), full.len() - 4);
    }
}

// Checklist 28.
#[test]
fn test_vpd_83_is_stable_unique_and_naa_6() {
    let page = |parts: &[&[u8]]| {
        let disk = named(DiskIdentity::derived(parts), geometry());
        data(&disk, &[0x12, 1, 0x83, 0, 255, 0], 255)
    };
    let first = page(&[b"image", b"0", b"0"]);
    assert_eq!(first, page(&[b"image", b"0", b"0"]));
    assert_ne!(first, page(&[b"image", b"0", b"1"]));
    assert_ne!(first, page(&[b"image0", b"", b"0"]));
    assert_eq!(first[4..16], *b"\x01\x01\0\x18Msft    ");
    assert_eq!(first[32..40], [0x01, 0x03, 0, 16, 0x60, 0x02, 0x24, 0x80]);
    assert_eq!(first.len(), 4 + 28 + 20);
    assert_eq!(first[40..46], first[16..22]);
    assert_eq!(first[46..52], first[26..32]);
}

#[test]
fn test_vpd_80_shows_the_users_serial_and_bad_serials_are_refused() {
    let identity = DiskIdentity::with_serial("WD-0815").unwrap();
    let disk = named(identity, geometry());
    assert_eq!(data(&disk, &[0x12, 1, 0x80, 0, 255, 0], 255), b"\x00\x80\x00\x07WD-0815");
    for bad in ["", "tab\there", "\u{fc}ml\u{e4}ut", &"x".repeat(DiskIdentity::MAX_SERIAL + 1)] {
        assert_eq!(DiskIdentity::with_serial(bad), None);
    }
}

#[test]
fn test_vpd_b0_states_the_transfer_limit_in_blocks_and_no_unmap() {
    let page = data(&disk(), &[0x12, 1, 0xB0, 0, 255, 0], 255);
    assert_eq!(page.len(), 64);
    assert_eq!(page[6..8], [0, 8]);
    assert_eq!(page[8..12], 2048_u32.to_be_bytes());
    assert_eq!((page[4], &page[36..44]), (1, &65536_u64.to_be_bytes()[..]));
    assert!(page[12..36].iter().chain(&page[44..]).all(|&byte| byte == 0));
}

#[test]
fn test_vpd_b1_tells_solid_state_from_rotating() {
    let rotating = disk_of(Geometry { rotational: true, ..geometry() });
    assert_eq!(data(&disk(), &[0x12, 1, 0xB1, 0, 64, 0], 64)[4..6], [0, 1]);
    assert_eq!(data(&rotating, &[0x12, 1, 0xB1, 0, 64, 0], 64)[4..6], [0, 0]);
}

// Checklist 29.
#[test]
fn test_read_capacity_16_cuts_to_any_allocation() {
    let rc16 = |allocation: u32| {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&[0x9E, 0x10]);
        bytes[10..14].copy_from_slice(&allocation.to_be_bytes());
        bytes
    };
    let full = data(&disk(), &rc16(32), 32);
    assert_eq!(full.len(), 32);
    assert_eq!(full[..8], (64 * MIB / 512 - 1).to_be_bytes());
    assert_eq!(full[8..12], 512_u32.to_be_bytes());
    assert_eq!(full[12..16], [0, 3, 0, 0]);
    assert_eq!(data(&disk(), &rc16(4096), 4096), full);
    // A short allocation length is no error (SPC-4 section 4.2.5.6).
    for allocation in [0, 1, 11, 12, 31] {
        assert_eq!(data(&disk(), &rc16(allocation), 32), full[..allocation as usize]);
        assert_eq!(data(&disk(), &rc16(32), allocation.max(1)), full[..allocation.max(1) as usize]);
    }
    assert_eq!(run(&disk(), &rc16(0), Transfer::None).unwrap().0, Decision::Good);
    assert_eq!(failure(&disk(), &rc16(32), Transfer::None).1, Cause::DataOverrun);
}

// Checklist 29.
#[test]
fn test_read_capacity_10_above_2_tib_returns_all_ones() {
    let rc10 = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let at = |capacity| data(&disk_of(Geometry { capacity, ..geometry() }), &rc10, 8);
    assert_eq!(at(64 * MIB), [0, 1, 0xFF, 0xFF, 0, 0, 2, 0]);
    assert_eq!(at(512 << 32)[..4], [0xFF; 4]);
    assert_eq!(at(513 << 32)[..4], [0xFF; 4]);
    assert_eq!(at(((1 << 32) - 1) * 512)[..4], [0xFF, 0xFF, 0xFF, 0xFE]);
    assert_eq!(failure(&disk(), &rc10, Transfer::ToGuest(7)).1, Cause::DataOverrun);
}

#[test]
fn test_disk_4kn_counts_in_4096_byte_blocks() {
    let disk = disk_of(Geometry { block_size: BlockSize::B4096, ..geometry() });
    assert_eq!(
        data(&disk, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8),
        [0, 0, 0x3F, 0xFF, 0, 0, 0x10, 0]
    );
    let (decision, _) = run(&disk, &rw16(0x88, 0, 3, 2), Transfer::ToGuest(8192)).unwrap();
    assert_eq!(
        decision,
        Decision::Io(Io {
            operation: Operation::Read,
            range: Range { offset: 12288, length: 8192 }
        })
    );
}

// Checklist 32.
#[test]
fn test_io_range_is_checked_to_the_last_block() {
    let disk = disk();
    let blocks = 64 * MIB / 512;
    let range = (Sense::LBA_OUT_OF_RANGE, Cause::Execution);
    assert!(run(&disk, &rw16(0x88, 0, blocks - 1, 1), Transfer::ToGuest(512)).is_ok());
    for (lba, count) in
        [(blocks, 1), (blocks - 1, 2), (u64::MAX, 1), (u64::MAX, u32::MAX), (blocks + 1, 0)]
    {
        for opcode in [0x88, 0x8A] {
            let transfer =
                if opcode == 0x88 { Transfer::ToGuest(1 << 20) } else { Transfer::ToDisk(1 << 20) };
            assert_eq!(failure(&disk, &rw16(opcode, 0, lba, count), transfer), range);
        }
        assert_eq!(failure(&disk, &rw16(0x8F, 0, lba, count), Transfer::None), range);
        assert_eq!(failure(&disk, &rw16(0x91, 0, lba, count), Transfer::None), range);
    }
    assert_eq!(run(&disk, &rw16(0x88, 0, blocks, 0), Transfer::None).unwrap().0, Decision::Good);
    assert_eq!(run(&disk, &rw16(0x8F, 0, 0, 8), Transfer::None).unwrap().0, Decision::Good);
}

#[test]
fn test_io_every_cdb_size_gives_the_same_extent() {
    let disk = disk();
    let range = Range { offset: 0x1234 * 512, length: 8 * 512 };
    let read = Decision::Io(Io { operation: Operation::Read, range });
    let write = Decision::Io(Io { operation: Operation::Write { fua: false }, range });
    let cdbs: [&[u8]; 4] = [
        &[0x08, 0, 0x12, 0x34, 8, 0],
        &[0x28, 0, 0, 0, 0x12, 0x34, 0, 0, 8, 0],
        &[0xA8, 0, 0, 0, 0x12, 0x34, 0, 0, 0, 8, 0, 0],
        &[0x88, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0, 0, 0, 8, 0, 0],
    ];
    for bytes in cdbs {
        assert_eq!(run(&disk, bytes, Transfer::ToGuest(4096)).unwrap().0, read);
        let mut bytes = bytes.to_vec();
        bytes[0] += 2;
        assert_eq!(run(&disk, &bytes, Transfer::ToDisk(4096)).unwrap().0, write);
    }
}

#[test]
fn test_io_6_byte_count_of_zero_means_256_blocks() {
    let (decision, _) =
        run(&disk(), &[0x08, 0xE1, 0, 0, 0, 0], Transfer::ToGuest(256 * 512)).unwrap();
    assert_eq!(
        decision,
        Decision::Io(Io {
            operation: Operation::Read,
            range: Range { offset: 0x10000 * 512, length: 256 * 512 }
        })
    );
}

#[test]
fn test_io_more_blocks_than_buffer_is_refused_and_never_overflows() {
    let disk = disk_of(Geometry { capacity: 4 << 40, ..geometry() });
    let sense = |count, room| failure(&disk, &rw16(0x88, 0, 0, count), Transfer::ToGuest(room)).0;
    for count in [2, 3, 2048] {
        assert_eq!(sense(count, (count - 1) * 512), Sense::LBA_OUT_OF_RANGE);
    }
    // One more than MAXIMUM TRANSFER LENGTH of page 0xB0, and counts that would overflow.
    for count in [2049, 0x80_0000, 0x80_0001, u32::MAX] {
        assert_eq!(sense(count, 1 << 20), Sense::INVALID_FIELD_IN_CDB);
    }
}

#[test]
fn test_io_against_the_announced_direction_is_invalid() {
    for transfer in [Transfer::ToDisk(512), Transfer::None] {
        assert_eq!(failure(&disk(), &rw16(0x88, 0, 0, 1), transfer), INVALID_FIELD);
    }
    assert_eq!(failure(&disk(), &rw16(0x8A, 0, 0, 1), Transfer::ToGuest(512)), INVALID_FIELD);
}

#[test]
fn test_io_fua_is_kept_for_writes_and_write_and_verify_forces_it() {
    let kind = |opcode, flags| match run(&disk(), &rw16(opcode, flags, 0, 1), Transfer::ToDisk(512))
        .unwrap()
        .0
    {
        Decision::Io(io) => io.operation,
        other => panic!("{other:?}"),
    };
    assert_eq!(kind(0x8A, 0x08), Operation::Write { fua: true });
    assert_eq!(kind(0x8A, 0x10), Operation::Write { fua: false });
    assert_eq!(kind(0x8E, 0x00), Operation::Write { fua: true });
}

#[test]
fn test_io_reladr_protection_and_reserved_bytchk_are_invalid_fields() {
    let reladr = [0x28, 1, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(failure(&disk(), &reladr, Transfer::ToGuest(512)), INVALID_FIELD);
    assert_eq!(failure(&disk(), &rw16(0x88, 0x20, 0, 1), Transfer::ToGuest(512)), INVALID_FIELD);
    // BYTCHK 2 is reserved; WRITE AND VERIFY does not define BYTCHK 3.
    assert_eq!(failure(&disk(), &rw16(0x8F, 0x04, 0, 1), Transfer::ToDisk(512)), INVALID_FIELD);
    assert_eq!(failure(&disk(), &rw16(0x8E, 0x06, 0, 1), Transfer::ToDisk(512)), INVALID_FIELD);
}

// Checklist 33.
#[test]
fn test_write_to_read_only_disk_is_write_protected() {
    for opcode in [0x8A, 0x8E] {
        assert_eq!(
            failure(&read_only(), &rw16(opcode, 0, 0, 1), Transfer::ToDisk(512)),
            (Sense::WRITE_PROTECTED, Cause::Execution)
        );
    }
    assert!(run(&read_only(), &rw16(0x88, 0, 0, 1), Transfer::ToGuest(512)).is_ok());
}

#[test]
fn test_flush_commands_flush_and_read_only_disks_have_nothing_to_flush() {
    let flushes: [&[u8]; 5] = [
        &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x35, 2, 0, 0, 0, 0, 0, 0, 8, 0],
        &rw16(0x91, 0, 0, 0),
        &[0x1B, 0, 0, 0, 0, 0],
        &[0x1B, 1, 0, 0, 0, 0],
    ];
    for bytes in flushes {
        assert_eq!(run(&disk(), bytes, Transfer::None).unwrap().0, Decision::Flush);
        assert_eq!(run(&read_only(), bytes, Transfer::None).unwrap().0, Decision::Good);
    }
}

#[test]
fn test_simple_commands_are_good() {
    let simple: [&[u8]; 10] = [
        &[0x00, 0, 0, 0, 0, 0],
        &[0x16, 0, 0, 0, 0, 0],
        &[0x17, 0, 0, 0, 0, 0],
        &[0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x1B, 0, 0, 0, 1, 0],
        &[0x1B, 1, 0, 0, 1, 0],
        &[0x1B, 0, 0, 0, 0x10, 0],
        &[0x1D, 0, 0, 0, 0, 0],
        &[0x1E, 0, 0, 0, 1, 0],
    ];
    for bytes in simple {
        assert_eq!(run(&disk(), bytes, Transfer::None).unwrap().0, Decision::Good, "{bytes:02x?}");
    }
    let refused: [&[u8]; 5] = [
        &[0x16, 0x10, 0, 0, 0, 0],
        &[0x57, 0x10, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x1B, 0, 0, 0, 2, 0],
        &[0x1D, 0x24, 0, 0, 0, 0],
        &[0x1D, 0, 0, 0, 8, 0],
    ];
    for bytes in refused {
        assert_eq!(failure(&disk(), bytes, Transfer::None), INVALID_FIELD, "{bytes:02x?}");
    }
}

// Checklist 38: unsupported commands are refused, so that guests stop sending them.
#[test]
fn test_unknown_and_unsupported_commands_are_invalid_opcodes() {
    for opcode in
        [0x04, 0x42, 0x4D, 0x85, 0xA1, 0xA3, 0x83, 0x84, 0x43, 0x7F, 0x60, 0xC0, 0xE7, 0xFF]
    {
        let mut bytes = [0; 16];
        bytes[0] = opcode;
        assert_eq!(failure(&disk(), &bytes, Transfer::None), INVALID_OPCODE, "{opcode:#x}");
    }
    // A service action is a field of its operation.
    assert_eq!(failure(&disk(), &rw16(0x9E, 0x13, 0, 0), Transfer::ToGuest(512)), INVALID_FIELD);
}

#[test]
fn test_cdb_shorter_than_its_operation_is_an_invalid_field() {
    let (bytes, _) = cdb(&rw16(0x88, 0, 0, 1));
    assert_eq!(Command::parse(&bytes, 15), Err(CheckCondition::INVALID_FIELD));
    assert_eq!(Command::parse(&[0; 16], 1), Err(CheckCondition::INVALID_FIELD));
    assert!(Command::parse(&[0; 16], 16).is_ok());
}

#[test]
fn test_request_sense_without_attention_is_no_sense() {
    let sense = data(&disk(), &[0x03, 0, 0, 0, 255, 0], 255);
    assert_eq!(sense.len(), 18);
    assert_eq!((sense[0], sense[2], sense[7]), (0x70, 0, 10));
    assert_eq!(failure(&disk(), &[0x03, 1, 0, 0, 18, 0], Transfer::ToGuest(18)), INVALID_FIELD);
}

#[test]
fn test_resize_is_reported_once_by_the_next_command_that_can() {
    let disk = disk();
    let ready = [0x00, 0, 0, 0, 0, 0];
    disk.resize(128 * MIB);
    assert_eq!(data(&disk, &[0x12, 0, 0, 0, 36, 0], 36).len(), 36);
    assert_eq!(failure(&disk, &ready, Transfer::None), (Sense::CAPACITY_CHANGED, Cause::Execution));
    assert!(run(&disk, &ready, Transfer::None).is_ok());
    assert_eq!(data(&disk, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8)[..4], [0, 3, 0xFF, 0xFF]);
    // The same size again is not reported.
    disk.resize(128 * MIB);
    assert!(run(&disk, &ready, Transfer::None).is_ok());
}

/// Linux takes MODE SENSE for a success with any status, then finds no caching page and stops
/// flushing. So the attention stays pending for a command whose failure the guest sees.
#[test]
fn test_capacity_attention_is_left_pending_by_commands_that_do_not_report_it() {
    const READY: [u8; 6] = [0; 6];
    let silent: [&[u8]; 8] = [
        &[0x1A, 0, 0x08, 0, 24, 0],
        &[0x1A, 0, 0x3F, 0, 4, 0],
        &[0x1A, 0, 0x1C, 0, 24, 0],
        &[0x5A, 0, 0x08, 0, 0, 0, 0, 0, 28, 0],
        &[0x12, 0, 0, 0, 36, 0],
        &[0x12, 1, 0xB0, 0, 64, 0],
        &[0x12, 0, 0x83, 0, 64, 0],
        &[0xFF, 0, 0, 0, 0, 0],
    ];
    for bytes in silent {
        let disk = disk();
        let run_it = || run(&disk, bytes, Transfer::ToGuest(64));
        let before = run_it();
        disk.resize(128 * MIB);
        assert_eq!(run_it(), before, "{bytes:02x?}");
        assert_eq!(
            failure(&disk, &READY, Transfer::None).0,
            Sense::CAPACITY_CHANGED,
            "{bytes:02x?}"
        );
        assert!(run(&disk, &READY, Transfer::None).is_ok());
    }
}

/// SAM-5 section 5.14 exempts only INQUIRY, REPORT LUNS and REQUEST SENSE; this disk also exempts
/// MODE SENSE.
#[test]
fn test_capacity_attention_is_reported_once_by_every_other_command() {
    let reporting: [(&[u8], Transfer); 14] = [
        (&[0x00, 0, 0, 0, 0, 0], Transfer::None),
        (&[0x15, 0x10, 0, 0, 24, 0], Transfer::ToDisk(24)),
        (&[0x16, 0, 0, 0, 0, 0], Transfer::None),
        (&[0x1B, 0, 0, 0, 1, 0], Transfer::None),
        (&[0x1D, 0, 0, 0, 0, 0], Transfer::None),
        (&[0x1E, 0, 0, 0, 0, 0], Transfer::None),
        (&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], Transfer::ToGuest(8)),
        (&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], Transfer::ToGuest(512)),
        (&[0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0], Transfer::ToDisk(512)),
        (&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], Transfer::None),
        (&[0x5E, 0, 0, 0, 0, 0, 0, 0, 8, 0], Transfer::ToGuest(8)),
        (&[0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0], Transfer::ToDisk(24)),
        (&rw16(0x9E, 0x10, 0, 32), Transfer::ToGuest(32)),
        (&rw16(0x9E, 0x12, 0, 24), Transfer::ToGuest(24)),
    ];
    for (bytes, transfer) in reporting {
        let disk = disk();
        disk.resize(128 * MIB);
        assert_eq!(failure(&disk, bytes, transfer).0, Sense::CAPACITY_CHANGED, "{bytes:02x?}");
        assert!(run(&disk, bytes, transfer).is_ok(), "{bytes:02x?}");
    }
}

#[test]
fn test_resize_seen_by_request_sense_is_data_and_then_gone() {
    let disk = disk();
    disk.resize(MIB);
    let sense = data(&disk, &[0x03, 0, 0, 0, 18, 0], 18);
    assert_eq!((sense[2], sense[12], sense[13]), (6, 0x2A, 9));
    assert!(run(&disk, &[0; 6], Transfer::None).is_ok());
}

#[test]
fn test_report_luns_lists_ascending_and_cuts() {
    let report = |select, limit| {
        let mut out = Vec::new();
        report_luns(select, [0, 5, 63].into_iter(), limit, &mut out).map(|()| out)
    };
    let all = report(0, 4096).unwrap();
    assert_eq!(all.len(), 32);
    assert_eq!(all[..8], [0, 0, 0, 24, 0, 0, 0, 0]);
    assert_eq!([all[9], all[17], all[25]], [0, 5, 63]);
    assert_eq!(report(0, 16).unwrap(), all[..16]);
    for limit in [0, 1, 4, 7, 8, 15] {
        assert_eq!(report(0, limit).unwrap(), all[..limit]);
    }
    assert_eq!(report(2, 4096).unwrap(), all);
    assert_eq!(report(1, 4096).unwrap(), [0; 8]);
    assert_eq!(report(3, 4096), Err(CheckCondition::INVALID_FIELD));
}

fn absent(bytes: &[u8], lun: u8, transfer: Transfer) -> Option<Result<Vec<u8>, CheckCondition>> {
    let (cdb, length) = cdb(bytes);
    let mut out = Vec::new();
    let result =
        execute_absent(&Command::parse(&cdb, length), cdb[0] == 0x12, lun, transfer, &mut out);
    result.map(|result| result.map(|()| out))
}

// Checklist 19.
#[test]
fn test_absent_lun_inquiry_says_no_device_and_the_rest_is_not_answered() {
    let inquiry = [0x12, 0, 0, 0, 36, 0];
    let zero = absent(&inquiry, 0, Transfer::ToGuest(36)).unwrap().unwrap();
    assert_eq!((zero.len(), zero[0], zero[4]), (36, 0x7F, 99));
    assert_eq!(&zero[8..16], b"Msft    ");
    let seven = absent(&inquiry, 7, Transfer::ToGuest(36)).unwrap().unwrap();
    assert_eq!((seven.len(), seven[0]), (36, 0x7F));
    assert!(seven[8..].iter().all(|&byte| byte == 0));
    assert_eq!(absent(&[0; 6], 0, Transfer::None), None);
    assert_eq!(absent(&rw16(0x88, 0, 0, 1), 3, Transfer::ToGuest(512)), None);
}

#[test]
fn test_absent_lun_odd_inquiries_are_invalid_fields() {
    let error = Some(Err(CheckCondition::INVALID_FIELD));
    assert_eq!(absent(&[0x12, 1, 0x80, 0, 36, 0], 1, Transfer::ToGuest(36)), error);
    assert_eq!(absent(&[0x12, 0, 0x80, 0, 36, 0], 1, Transfer::ToGuest(36)), error);
    assert_eq!(absent(&[0x12, 0, 0, 0, 4, 0], 1, Transfer::ToGuest(36)), error);
    assert_eq!(absent(&[0x12, 0, 0, 0, 36, 0], 1, Transfer::ToGuest(35)), error);
    assert_eq!(absent(&[0x12, 0, 0, 0, 36, 0], 1, Transfer::ToDisk(36)), error);
}

#[test]
fn test_any_cdb_with_any_transfer_neither_panics_nor_leaves_the_disk() {
    // Every opcode and many field values.
    let discard = Some(Discard { granularity: 512, zeroes: true });
    let disk = disk_of(Geometry { capacity: 1000 * 512, discard, ..geometry() });
    let mut random = Random::new();
    for round in 0..400_000_u32 {
        let (bytes, length) = (random.cdb(round as u8), (random.next() % 17) as u8);
        let (transfer, mut out) = (random.transfer(), Vec::new());
        let Ok(command) = Command::parse(&bytes, length) else { continue };
        let inside =
            |range: Range| range.length > 0 && range.offset + range.length <= disk.capacity();
        let mut decision = disk.execute(command, transfer, &mut out);
        if let Ok(Decision::Parameters(parameters)) = decision {
            assert!(parameters.length() <= transfer.length() as usize);
            assert!(parameters.length() <= Parameters::MAX);
            decision = disk.parameters(parameters, &random.list(parameters.length()));
        }
        match decision {
            Ok(Decision::Io(Io { operation, range })) => {
                let moves = matches!(operation, Operation::Read | Operation::Write { .. });
                assert!(inside(range) && (!moves || range.length <= transfer.length().into()));
            }
            Ok(Decision::Job(job)) => match *job {
                Job::Discard(ranges) => assert!(ranges.into_iter().all(inside)),
                Job::Fill { range, .. } => assert!(inside(range)),
                Job::Compare { range, expected, .. } => {
                    let fits = range.length <= transfer.length().into();
                    assert!(inside(range) && (expected != Expected::Buffer || fits));
                }
            },
            Ok(Decision::LbaStatus(query)) => {
                assert!(inside(query.range) && query.room <= transfer.length());
            }
            Ok(Decision::Reply) => assert!(out.len() <= transfer.length() as usize),
            Ok(other @ (Decision::Parameters(_) | Decision::Ejected)) => panic!("{other:?}"),
            Ok(Decision::Good | Decision::Flush | Decision::Conflict) | Err(_) => {
                assert!(out.is_empty());
            }
        }
    }
}
