//! Conformance checklist of the DVD drive (spec storvsc section 12).

use super::super::Cause;
use super::*;
use crate::testing::Random;

/// Blocks of the disc that tests put in.
const BLOCKS: u32 = 330_000;

fn empty() -> DvdDrive {
    DvdDrive::new(DiskIdentity::derived(&[b"dvd"]))
}

fn disc_of(drive: &DvdDrive, blocks: u32) -> Disc {
    drive.insert(u64::from(blocks) * 2048 + 2047).unwrap().unwrap()
}

fn loaded() -> (DvdDrive, Disc) {
    let drive = empty();
    let disc = disc_of(&drive, BLOCKS);
    (drive, disc)
}

fn run(
    drive: &DvdDrive,
    disc: Option<Disc>,
    bytes: &[u8],
    transfer: Transfer,
) -> Result<(Decision, Vec<u8>), CheckCondition> {
    let mut cdb = [0; 16];
    cdb[..bytes.len()].copy_from_slice(bytes);
    let mut out = Vec::new();
    let decision = drive.execute(&cdb, bytes.len() as u8, disc, transfer, &mut out)?;
    Ok((decision, out))
}

/// Returns the data of a command that must succeed with data.
fn data(drive: &DvdDrive, bytes: &[u8]) -> Vec<u8> {
    let (decision, data) = run(drive, None, bytes, Transfer::ToGuest(4096)).unwrap();
    assert_eq!(decision, Decision::Reply);
    data
}

/// Executes a command without data.
fn plain(drive: &DvdDrive, bytes: &[u8]) -> Result<Decision, Sense> {
    run(drive, None, bytes, Transfer::None)
        .map(|(decision, _)| decision)
        .map_err(|error| error.sense)
}

fn failure(drive: &DvdDrive, bytes: &[u8]) -> Sense {
    run(drive, None, bytes, Transfer::ToGuest(4096)).unwrap_err().sense
}

const READY: [u8; 6] = [0; 6];
const CAPACITY: [u8; 10] = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const EJECT: [u8; 6] = [0x1B, 0, 0, 0, 2, 0];
const LOAD: [u8; 6] = [0x1B, 0, 0, 0, 3, 0];
const LOCK: [u8; 6] = [0x1E, 0, 0, 0, 1, 0];
const UNLOCK: [u8; 6] = [0x1E, 0, 0, 0, 0, 0];
const POLL: [u8; 10] = [0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8, 0];

/// Returns (event, status) of the next poll.
fn poll(drive: &DvdDrive) -> (u8, u8) {
    let answer = data(drive, &POLL);
    assert_eq!(answer[..4], [0, 6, 4, 0x10]);
    (answer[4], answer[5])
}

fn read(opcode: u8, lba: u32, blocks: u8) -> Vec<u8> {
    let mut cdb = vec![opcode, 0];
    match opcode {
        0x28 => cdb.extend([&lba.to_be_bytes()[..], &[0, 0, blocks, 0]].concat()),
        0xA8 => cdb.extend([&lba.to_be_bytes()[..], &[0, 0, 0, blocks, 0, 0]].concat()),
        _ => cdb.extend([&u64::from(lba).to_be_bytes()[..], &[0, 0, 0, blocks, 0, 0]].concat()),
    }
    cdb
}

// Checklist 45.
#[test]
fn test_empty_drive_has_no_medium_and_insertion_is_an_event() {
    let drive = empty();
    assert_eq!(plain(&drive, &READY), Err(Sense::NO_MEDIUM_TRAY_CLOSED));
    let about_disc: [&[u8]; 7] = [
        &CAPACITY,
        &read(0x28, 0, 1),
        &[0x43, 0, 0, 0, 0, 0, 0, 0, 20, 0],
        &[0x51, 0, 0, 0, 0, 0, 0, 0, 34, 0],
        &[0x52, 1, 0, 0, 0, 1, 0, 0, 36, 0],
        &[0xAC, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
        &[0xAD, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0],
    ];
    for bytes in about_disc {
        assert_eq!(failure(&drive, bytes), Sense::NO_MEDIUM_TRAY_CLOSED, "{bytes:02x?}");
    }
    assert_eq!(poll(&drive), (0, 0));
    assert_eq!(drive.insert(2047), Ok(None));
    disc_of(&drive, 1);
    assert_eq!(poll(&drive), (2, 2));
    assert_eq!(poll(&drive), (0, 2));
    assert_eq!(plain(&drive, &READY), Ok(Decision::Good));
    assert_eq!(data(&drive, &CAPACITY), [0, 0, 0, 0, 0, 0, 8, 0]);
}

// Checklist 46.
#[test]
fn test_eject_by_guest_respects_its_lock() {
    let (drive, _) = loaded();
    poll(&drive);
    assert_eq!(plain(&drive, &LOCK), Ok(Decision::Good));
    assert_eq!(plain(&drive, &EJECT), Err(Sense::REMOVAL_PREVENTED));
    assert!(drive.report().is_locked);
    assert_eq!(plain(&drive, &UNLOCK), Ok(Decision::Good));
    assert_eq!(plain(&drive, &EJECT), Ok(Decision::Ejected));
    assert_eq!(plain(&drive, &READY), Err(Sense::NO_MEDIUM_TRAY_OPEN));
    assert_eq!(drive.report(), TrayReport { has_disc: false, is_open: true, is_locked: false });
    assert_eq!(poll(&drive), (3, 1));
    assert_eq!(plain(&drive, &EJECT), Ok(Decision::Good));
    assert_eq!(poll(&drive), (0, 1));
    assert_eq!(plain(&drive, &LOAD), Ok(Decision::Good));
    assert_eq!(plain(&drive, &READY), Err(Sense::NO_MEDIUM_TRAY_CLOSED));
    assert_eq!(plain(&drive, &LOCK), Ok(Decision::Good));
    assert_eq!(plain(&drive, &EJECT), Err(Sense::NOT_READY_REMOVAL_PREVENTED));
}

#[test]
fn test_eject_by_user_of_a_locked_tray_asks_the_guest_or_is_forced() {
    let (drive, disc) = loaded();
    poll(&drive);
    // The persistent lock counts as well, and each lock must be released by its own command.
    for (lock, unlock) in [(1, 0), (3, 2)] {
        plain(&drive, &[0x1E, 0, 0, 0, lock, 0]).unwrap();
        plain(&drive, &[0x1E, 0, 0, 0, 2 - unlock, 0]).unwrap();
        assert_eq!(drive.eject(false), Err(TrayLocked));
        assert_eq!(drive.insert(4096), Err(TrayLocked));
        assert_eq!(poll(&drive), (1, 2));
        assert_eq!(
            run(&drive, Some(disc), &read(0x28, 0, 0), Transfer::None).unwrap().0,
            Decision::Good
        );
        plain(&drive, &[0x1E, 0, 0, 0, unlock, 0]).unwrap();
    }
    plain(&drive, &LOCK).unwrap();
    assert_eq!(drive.eject(true), Ok(()));
    assert_eq!(poll(&drive), (3, 1));
    assert!(!drive.report().is_locked);
    // A reset of the guest releases its locks.
    disc_of(&drive, 1);
    plain(&drive, &LOCK).unwrap();
    drive.reset();
    assert_eq!(drive.eject(false), Ok(()));
}

// Checklist 47.
#[test]
fn test_exchange_is_a_removal_and_then_new_media() {
    let (drive, _) = loaded();
    poll(&drive);
    disc_of(&drive, 7);
    assert_eq!((poll(&drive), poll(&drive), poll(&drive)), ((3, 0), (2, 2), (0, 2)));
    drive.eject(false).unwrap();
    disc_of(&drive, 7);
    assert_eq!((poll(&drive), poll(&drive), poll(&drive)), ((3, 0), (2, 2), (0, 2)));
    drive.eject(false).unwrap();
    disc_of(&drive, 7);
    drive.eject(false).unwrap();
    assert_eq!((poll(&drive), poll(&drive)), ((3, 1), (0, 1)));
}

#[test]
fn test_events_need_polling_room_and_their_class() {
    let (drive, _) = loaded();
    assert_eq!(failure(&drive, &[0x4A, 0, 0, 0, 0x10, 0, 0, 0, 8, 0]), Sense::INVALID_FIELD_IN_CDB);
    assert_eq!(data(&drive, &[0x4A, 1, 0, 0, 0x02, 0, 0, 0, 8, 0]), [0, 2, 0x80, 0x10]);
    // The guest reads only the header, so the event stays pending.
    assert_eq!(data(&drive, &[0x4A, 1, 0, 0, 0xFF, 0, 0, 0, 4, 0]), [0, 6, 4, 0x10]);
    assert_eq!(poll(&drive), (2, 2));
}

// Checklist 48.
#[test]
fn test_toc_has_one_data_track_in_blocks_and_in_time() {
    let (drive, _) = loaded();
    let toc =
        |flags, format, first| data(&drive, &[0x43, flags, format, 0, 0, 0, first, 0, 255, 0]);
    let end = BLOCKS.to_be_bytes();
    let blocks = toc(0, 0, 0);
    assert_eq!(blocks[..12], [0, 0x12, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0]);
    assert_eq!(blocks[12..], [0, 0x14, 0xAA, 0, end[0], end[1], end[2], end[3]]);
    // 330,150 blocks are 73 minutes, 22 seconds.
    let time = toc(2, 0, 1);
    assert_eq!((&time[8..12], &time[16..20]), (&[0, 0, 2, 0][..], &[0, 73, 22, 0][..]));
    assert_eq!(toc(0, 0, 0xAA), [&[0, 10, 1, 1][..], &blocks[12..]].concat());
    assert_eq!(toc(0, 1, 0), [0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0]);
    assert_eq!(
        data(&drive, &[0x43, 0, 0, 0, 0, 0, 0, 0, 255, 0x40])[1],
        10,
        "format in the control byte"
    );
    assert_eq!(data(&drive, &[0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0]), blocks[..12]);
    for (format, first) in [(0, 2), (2, 0), (5, 0)] {
        let bytes = [0x43, 0, format, 0, 0, 0, first, 0, 255, 0];
        assert_eq!(failure(&drive, &bytes), Sense::INVALID_FIELD_IN_CDB);
    }
    let large = empty();
    disc_of(&large, u32::MAX);
    assert_eq!(data(&large, &[0x43, 2, 0, 0, 0, 0, 0, 0, 255, 0])[16..], [0, 255, 59, 74]);
}

// Checklist 48.
#[test]
fn test_read_is_in_2048_byte_blocks_up_to_the_last() {
    let (drive, disc) = loaded();
    for opcode in [0x28, 0xA8, 0x88] {
        let bytes = read(opcode, BLOCKS - 2, 2);
        let range = Range { offset: u64::from(BLOCKS - 2) * 2048, length: 4096 };
        let io = Decision::Io(Io { operation: Operation::Read, range });
        assert_eq!(run(&drive, Some(disc), &bytes, Transfer::ToGuest(4096)).unwrap().0, io);
        let fails = |bytes: &[u8], transfer| run(&drive, Some(disc), bytes, transfer).unwrap_err();
        assert_eq!(
            fails(&read(opcode, BLOCKS - 1, 2), Transfer::ToGuest(4096)),
            CheckCondition::OUT_OF_RANGE
        );
        assert_eq!(
            fails(&read(opcode, u32::MAX, 255), Transfer::ToGuest(4096)),
            CheckCondition::OUT_OF_RANGE
        );
        assert_eq!(fails(&bytes, Transfer::ToGuest(4095)), CheckCondition::OUT_OF_BUFFER);
        assert_eq!(fails(&bytes, Transfer::ToDisk(4096)), CheckCondition::INVALID_FIELD);
        let none = run(&drive, Some(disc), &read(opcode, BLOCKS, 0), Transfer::None).unwrap().0;
        assert_eq!(none, Decision::Good);
    }
}

#[test]
fn test_read_by_a_worker_that_holds_another_disc_is_tried_again() {
    let (drive, old) = loaded();
    let new = disc_of(&drive, BLOCKS);
    let read = |disc| run(&drive, disc, &read(0x28, 0, 1), Transfer::ToGuest(2048));
    assert_eq!(read(Some(old)).unwrap_err().sense, Sense::BECOMING_READY);
    assert_eq!(read(None).unwrap_err().sense, Sense::BECOMING_READY);
    assert!(read(Some(new)).is_ok());
}

// Checklist 49.
#[test]
fn test_commands_that_write_or_are_unknown_are_invalid_opcodes() {
    let (drive, disc) = loaded();
    for opcode in
        [0x2A, 0xAA, 0x8A, 0x04, 0x35, 0x41, 0x42, 0x15, 0x5E, 0x9E, 0xBE, 0x08, 0x60, 0xFF]
    {
        let mut bytes = [0; 16];
        bytes[0] = opcode;
        let refused = run(&drive, Some(disc), &bytes, Transfer::ToDisk(2048)).unwrap_err();
        assert_eq!(
            (refused.sense, refused.cause),
            (Sense::INVALID_OPCODE, Cause::InvalidRequest),
            "{opcode:#x}"
        );
    }
    assert_eq!(
        run(&drive, None, &[0x25; 9], Transfer::ToGuest(8)),
        Err(CheckCondition::INVALID_FIELD)
    );
}

#[test]
fn test_inquiry_is_a_removable_dvd_with_two_pages() {
    let drive = empty();
    let standard = data(&drive, &[0x12, 0, 0, 0, 255, 0]);
    assert_eq!((standard.len(), &standard[..5]), (96, &[5, 0x80, 0, 2, 91][..]));
    assert_eq!(&standard[8..36], b"Msft    Virtual DVD-ROM 1.0 ");
    assert_eq!(data(&drive, &[0x12, 0, 0, 0, 36, 0]), standard[..36]);
    assert_eq!(data(&drive, &[0x12, 1, 0, 0, 255, 0]), [5, 0, 0, 2, 0, 0x83]);
    let names = data(&drive, &[0x12, 1, 0x83, 0, 255, 0]);
    assert_eq!(
        (names.len(), &names[..12]),
        (32, &[5, 0x83, 0, 28, 1, 1, 0, 24, b'M', b's', b'f', b't'][..])
    );
    for bytes in [[0x12, 1, 0x80, 0, 36, 0], [0x12, 0, 0x83, 0, 36, 0], [0x12, 2, 0, 0, 36, 0]] {
        assert_eq!(failure(&drive, &bytes), Sense::INVALID_FIELD_IN_CDB);
    }
    assert!(run(&drive, None, &[0x12, 0, 0, 0, 36, 0], Transfer::ToGuest(35)).is_err());
}

/// Returns the features by code, and whether each is in force.
fn features(drive: &DvdDrive, kind: u8, first: u8) -> (u16, Vec<(u16, bool)>) {
    let all = data(drive, &[0x46, kind, 0, first, 0, 0, 0, 4, 0, 0]);
    assert_eq!(be16(&all, 2) as usize + 4, all.len());
    let (mut at, mut list) = (8, Vec::new());
    while at < all.len() {
        list.push((be16(&all, at), all[at + 2] & 1 != 0));
        at += 4 + usize::from(all[at + 3]);
    }
    assert_eq!(at, all.len());
    (be16(&all, 6), list)
}

#[test]
fn test_configuration_lists_features_by_kind_and_start() {
    let (drive, _) = loaded();
    let (profile, all) = features(&drive, 0, 0);
    assert_eq!(profile, 0x10);
    let codes: Vec<_> = all.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [0, 1, 2, 3, 0x10, 0x1E, 0x1F, 0x100, 0x105, 0x107]);
    assert_eq!(
        all.iter().filter(|(_, current)| !current).map(|(code, _)| *code).collect::<Vec<_>>(),
        [0x1E]
    );
    assert_eq!(features(&drive, 1, 0).1.len(), 9);
    assert_eq!(features(&drive, 0, 0x1F).1.len(), 4);
    assert_eq!(features(&drive, 2, 0x1F).1, [(0x1F, true)]);
    assert_eq!(features(&drive, 2, 0x20).1, []);
    assert_eq!(failure(&drive, &[0x46, 3, 0, 0, 0, 0, 0, 4, 0, 0]), Sense::INVALID_FIELD_IN_CDB);
    let (profile, current) = features(&empty(), 1, 0);
    assert_eq!(profile, 0);
    assert!(current.iter().map(|(code, _)| *code).eq([0, 1, 2, 3, 0x100, 0x105]));
    assert_eq!(data(&drive, &[0x46, 0, 0, 0, 0, 0, 0, 0, 8, 0]).len(), 8);
}

#[test]
fn test_mode_sense_gives_linux_the_capabilities_page() {
    let (drive, _) = loaded();
    let page = data(&drive, &[0x1A, 0, 0x2A, 0, 128, 0]);
    assert_eq!((page.len(), page[0], page[3]), (26, 25, 0));
    assert_eq!(page[4..8], [0x2A, 20, 0x3F, 0]);
    // A tray that ejects and locks, not locked.
    assert_eq!(page[10], 0x29);
    plain(&drive, &LOCK).unwrap();
    assert_eq!(data(&drive, &[0x1A, 0, 0x2A, 0, 128, 0])[10], 0x2B);
    let all = data(&drive, &[0x5A, 0, 0x3F, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!((all.len(), be16(&all, 0)), (8 + 3 * 12 + 22, 8 + 3 * 12 + 22 - 2));
    assert_eq!((all[8], all[20], all[32], all[44]), (1, 0x1A, 0x1D, 0x2A));
    assert!(
        data(&drive, &[0x5A, 0, 0x6A, 0, 0, 0, 0, 1, 0, 0])[10..].iter().all(|&byte| byte == 0)
    );
    assert_eq!(failure(&drive, &[0x5A, 0, 0xC1, 0, 0, 0, 0, 1, 0, 0]), Sense::SAVING_NOT_SUPPORTED);
    assert_eq!(failure(&drive, &[0x5A, 0, 0x08, 0, 0, 0, 0, 1, 0, 0]), Sense::INVALID_FIELD_IN_CDB);
}

#[test]
fn test_mode_select_takes_three_pages_and_ignores_them() {
    let (drive, _) = loaded();
    let select = |flags, list: &[u8]| {
        let bytes = [0x55, flags, 0, 0, 0, 0, 0, 0, list.len() as u8, 0];
        match run(&drive, None, &bytes, Transfer::ToDisk(list.len() as u32))?.0 {
            Decision::Parameters(parameters) => drive.parameters(parameters, list),
            other => Ok(other),
        }
        .map_err(|error: CheckCondition| error)
    };
    let page = |code| [&[0; 8][..], &[code, 10], &[0xFF; 10]].concat();
    for code in [0x01, 0x1A, 0x1D] {
        assert_eq!(select(0x10, &page(code)), Ok(Decision::Good));
    }
    assert_eq!(select(0x10, &[]), Ok(Decision::Good));
    assert_eq!(select(0x11, &page(1)), Err(CheckCondition::INVALID_FIELD));
    assert_eq!(select(0x10, &page(0x2A)).unwrap_err().sense, Sense::INVALID_FIELD_IN_PARAMETERS);
    for length in [1, 7, 9, 19] {
        assert_eq!(
            select(0x10, &page(1)[..length]).unwrap_err().sense,
            Sense::PARAMETER_LIST_LENGTH
        );
    }
}

#[test]
fn test_disc_track_structure_and_speed_follow_from_the_size() {
    let (drive, _) = loaded();
    let disc = data(&drive, &[0x51, 0, 0, 0, 0, 0, 0, 0, 255, 0]);
    assert_eq!((disc.len(), &disc[..8]), (34, &[0, 0x20, 0x0E, 1, 1, 1, 1, 0x20][..]));
    assert_eq!(failure(&drive, &[0x51, 1, 0, 0, 0, 0, 0, 0, 255, 0]), Sense::INVALID_FIELD_IN_CDB);
    for (kind, number) in [(0, 0), (0, 7), (1, 1), (2, 1)] {
        let track = data(&drive, &[0x52, kind, 0, 0, 0, number, 0, 0, 255, 0]);
        assert_eq!((track.len(), track[5], &track[24..28]), (36, 4, &BLOCKS.to_be_bytes()[..]));
    }
    for (kind, number) in [(1, 0), (1, 2), (2, 2), (3, 1)] {
        let bytes = [0x52, kind, 0, 0, 0, number, 0, 0, 255, 0];
        assert_eq!(failure(&drive, &bytes), Sense::INVALID_FIELD_IN_CDB);
    }
    let structure = |format| data(&drive, &[0xAD, 0, 0, 0, 0, 0, 0, format, 0x10, 0, 0, 0]);
    let physical = structure(0);
    assert_eq!((physical.len(), be16(&physical, 0)), (2052, 2050));
    assert_eq!(physical[12..16], (0x3_0000 + BLOCKS - 1).to_be_bytes());
    assert_eq!(structure(1), [0, 6, 0, 0, 0, 0, 0, 0]);
    assert_eq!(structure(4).len(), 2052);
    assert_eq!(
        failure(&drive, &[0xAD, 0, 0, 0, 0, 0, 0, 2, 0x10, 0, 0, 0]),
        Sense::INVALID_FIELD_IN_CDB
    );
    assert_eq!(data(&drive, &[0xAC, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0]).len(), 24);
    assert_eq!(data(&drive, &[0xBD, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0]).len(), 8);
    assert_eq!(data(&drive, &[0x5C, 0, 0, 0, 0, 0, 0, 0, 255, 0]).len(), 12);
    let streaming = [0xB6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 28, 0];
    let (decision, _) = run(&drive, None, &streaming, Transfer::ToDisk(28)).unwrap();
    let Decision::Parameters(parameters) = decision else { panic!("{decision:?}") };
    assert_eq!(drive.parameters(parameters, &[0xFF; 28]), Ok(Decision::Good));
}

#[test]
fn test_any_cdb_neither_panics_nor_leaves_the_disc() {
    let (drive, mut disc) = loaded();
    let mut random = Random::new();
    for round in 0..200_000_u32 {
        let (bytes, length) = (random.cdb(round as u8), (random.next() % 17) as u8);
        let (transfer, mut out) = (random.transfer(), Vec::new());
        match drive.execute(&bytes, length, Some(disc), transfer, &mut out) {
            Ok(Decision::Io(Io { range, .. })) => {
                assert!(range.length > 0 && range.length <= u64::from(transfer.length()));
                assert!(range.offset + range.length <= disc.capacity());
            }
            Ok(Decision::Reply) => assert!(out.len() <= transfer.length() as usize),
            Ok(Decision::Parameters(parameters)) => {
                assert!(parameters.length() <= transfer.length() as usize);
                let _ = drive.parameters(parameters, &random.list(parameters.length()));
            }
            Ok(Decision::Ejected) => disc = disc_of(&drive, 1 + (random.next() % 1000) as u32),
            Ok(Decision::Good) | Err(_) => assert!(out.is_empty()),
            other => panic!("{other:?}"),
        }
    }
}

/// The control byte, the last one, of every command that a drive supports: NACA is refused, and
/// vendor bits are ignored except by READ TOC, which has a format there.
#[test]
fn test_control_byte_with_naca_is_an_invalid_field_of_every_command() {
    let (drive, disc) = loaded();
    let known = [
        0x00, 0x03, 0x12, 0x1A, 0x1B, 0x1E, 0x25, 0x28, 0x43, 0x46, 0x4A, 0x51, 0x52, 0x55, 0x5A,
        0x5C, 0x88, 0xA8, 0xAC, 0xAD, 0xB6, 0xBD,
    ];
    for opcode in 0..=0xFF_u8 {
        let Some(length) = op::cdb_length(opcode) else { continue };
        let mut bytes = vec![0; length.into()];
        bytes[0] = opcode;
        *bytes.last_mut().unwrap() = 0x04;
        let refused = run(&drive, Some(disc), &bytes, Transfer::ToGuest(4096)).unwrap_err().sense;
        let is_known = known.contains(&opcode);
        let wanted = if is_known { Sense::INVALID_FIELD_IN_CDB } else { Sense::INVALID_OPCODE };
        assert_eq!(refused, wanted, "{opcode:#x}");
    }
    let toc = data(&drive, &[0x43, 0, 0, 0, 0, 0, 0, 0, 20, 0]);
    let sessions = data(&drive, &[0x43, 0, 0, 0, 0, 0, 0, 0, 20, 0x40]);
    assert_eq!((toc.len(), sessions.len()), (20, 12));
}

#[test]
fn test_mode_sense_subpage_ff_is_the_page_itself() {
    let (drive, _) = loaded();
    for page in [0x01, 0x1A, 0x1D, 0x2A, 0x3F] {
        let itself = data(&drive, &[0x5A, 0, page, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(data(&drive, &[0x5A, 0, page, 0xFF, 0, 0, 0, 1, 0, 0]), itself);
        let other = [0x5A, 0, page, 1, 0, 0, 0, 1, 0, 0];
        assert_eq!(failure(&drive, &other), Sense::INVALID_FIELD_IN_CDB);
    }
    assert_eq!(
        failure(&drive, &[0x5A, 0, 0x08, 0xFF, 0, 0, 0, 1, 0, 0]),
        Sense::INVALID_FIELD_IN_CDB
    );
}
