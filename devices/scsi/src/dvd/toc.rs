//! READ TOC: one session with one data track.

use super::super::CheckCondition;
use super::super::fields::be16;
use super::{Answer, Disc};

/// Track number of the lead-out, where the disc ends.
const LEAD_OUT: u8 = 0xAA;
/// ADR 1 (position), control 4 (data, copying forbidden). Linux takes a disc without a data track
/// for an audio disc.
const DATA_TRACK: u8 = 0x14;

/// Blocks before block 0, which addresses in minutes and seconds include: 2 seconds.
const LEAD_IN: u32 = 150;
const BLOCKS_PER_SECOND: u32 = 75;

pub(super) fn read(cdb: &[u8; 16], disc: Disc, out: &mut Vec<u8>) -> Answer {
    let in_time = cdb[1] & 0x02 != 0;
    // Old guests put the format into the control byte.
    let format = if cdb[2] & 0x0F == 0 { cdb[9] >> 6 } else { cdb[2] & 0x0F };
    let first = cdb[6];
    let begin = out.len();
    // Length after this field, first and last track (or session).
    out.extend_from_slice(&[0, 0, 1, 1]);
    match format {
        0 => {
            match first {
                0 | 1 => put(1, address(0, in_time), out),
                LEAD_OUT => {}
                _ => return Err(CheckCondition::INVALID_FIELD),
            }
            put(LEAD_OUT, address(disc.blocks, in_time), out);
        }
        1 => put(1, address(0, in_time), out),
        _ => return Err(CheckCondition::INVALID_FIELD),
    }
    out[begin + 1] = (out.len() - begin - 2) as u8;
    Ok(be16(cdb, 7).into())
}

fn put(track: u8, address: [u8; 4], out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, DATA_TRACK, track, 0]);
    out.extend_from_slice(&address);
}

/// Returns a block's address: its number, or minutes, seconds and blocks in binary. A block beyond
/// the last minute gets the last address.
fn address(block: u32, in_time: bool) -> [u8; 4] {
    if !in_time {
        return block.to_be_bytes();
    }
    let block = u64::from(block) + u64::from(LEAD_IN);
    let (seconds, rest) =
        (block / u64::from(BLOCKS_PER_SECOND), block % u64::from(BLOCKS_PER_SECOND));
    match u8::try_from(seconds / 60) {
        Ok(minutes) => [0, minutes, (seconds % 60) as u8, rest as u8],
        Err(_) => [0, u8::MAX, 59, 74],
    }
}
