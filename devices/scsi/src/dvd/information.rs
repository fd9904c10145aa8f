//! The commands that report the disc, the speed and the mechanism.

use super::super::CheckCondition;
use super::super::fields::{be16, be32};
use super::tray::Tray;
use super::{Answer, Disc};

/// A complete disc whose last session is complete.
const COMPLETE: u8 = 0x0E;
/// The disc may be used without restriction.
const UNRESTRICTED: u8 = 0x20;

/// The speed that the drive reports, in kilobytes a second: 16 times a DVD's. The drive does not
/// limit the real speed.
pub(super) const SPEED: u16 = 22160;

/// Answers READ DISC INFORMATION: one session with one track.
pub(super) fn disc(cdb: &[u8; 16], out: &mut Vec<u8>) -> Answer {
    let kind = cdb[1] & 0x07;
    if kind != 0 {
        return Err(CheckCondition::INVALID_FIELD);
    }
    let mut data = [0; 34];
    data[1] = 0x20;
    data[2..8].copy_from_slice(&[COMPLETE, 1, 1, 1, 1, UNRESTRICTED]);
    out.extend_from_slice(&data);
    Ok(be16(cdb, 7).into())
}

/// Answers READ TRACK INFORMATION, by block, track or session.
pub(super) fn track(cdb: &[u8; 16], disc: Disc, out: &mut Vec<u8>) -> Answer {
    let number = be32(cdb, 2);
    let exists = match cdb[1] & 0x03 {
        0 => number < disc.blocks,
        1 | 2 => number == 1,
        _ => false,
    };
    if !exists {
        return Err(CheckCondition::INVALID_FIELD);
    }
    let mut data = [0; 36];
    // Length after this field; track 1 of session 1; a data track; data mode 1; the last address is
    // valid.
    data[1..8].copy_from_slice(&[0x22, 1, 1, 0, 4, 1, 0x02]);
    data[24..28].copy_from_slice(&disc.blocks.to_be_bytes());
    data[28..32].copy_from_slice(&(disc.blocks - 1).to_be_bytes());
    out.extend_from_slice(&data);
    Ok(be16(cdb, 7).into())
}

/// Answers GET PERFORMANCE: the same speed everywhere. Only reading (type 0) has a speed.
pub(super) fn performance(cdb: &[u8; 16], disc: Disc, out: &mut Vec<u8>) -> Answer {
    const HEADER: u32 = 8;
    const DESCRIPTOR: u32 = 16;
    let (writing, kind, most) = (cdb[1] & 0x04 != 0, cdb[10], be16(cdb, 8));
    if kind != 0 || writing {
        return Err(CheckCondition::INVALID_FIELD);
    }
    let speed = u32::from(SPEED).to_be_bytes();
    out.extend_from_slice(&(HEADER + DESCRIPTOR - 4).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&speed);
    out.extend_from_slice(&(disc.blocks - 1).to_be_bytes());
    out.extend_from_slice(&speed);
    Ok(HEADER + u32::from(most.min(1)) * DESCRIPTOR)
}

/// Answers MECHANISM STATUS: idle, and whether the door is open. The drive has no changer.
pub(super) fn mechanism(cdb: &[u8; 16], tray: &Tray, out: &mut Vec<u8>) -> u32 {
    const DOOR_OPEN: u8 = 0x10;
    let door = if tray.is_open() { DOOR_OPEN } else { 0 };
    out.extend_from_slice(&[0, door, 0, 0, 0, 0, 0, 0]);
    be16(cdb, 8).into()
}

/// Answers READ BUFFER CAPACITY: the drive has no write buffer.
pub(super) fn buffer_capacity(cdb: &[u8; 16], out: &mut Vec<u8>) -> u32 {
    out.extend_from_slice(&[0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    be16(cdb, 7).into()
}
