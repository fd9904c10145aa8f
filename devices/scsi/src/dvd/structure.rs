//! READ DVD STRUCTURE: the lead-in of a pressed, single-layer disc.

use super::super::CheckCondition;
use super::super::fields::be16;
use super::{Answer, Disc};

const PHYSICAL: u8 = 0;
const COPYRIGHT: u8 = 1;
const MANUFACTURING: u8 = 4;

/// Bytes of the control data blocks that formats 0 and 4 return.
const CONTROL_DATA: usize = 2048;

/// Sector number at which a DVD's data begins.
const FIRST_SECTOR: u32 = 0x3_0000;

pub(super) fn read(cdb: &[u8; 16], disc: Disc, out: &mut Vec<u8>) -> Answer {
    let (media, layer, format) = (cdb[1] & 0x0F, cdb[6], cdb[7]);
    if media != 0 || layer != 0 {
        return Err(CheckCondition::INVALID_FIELD);
    }
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    match format {
        PHYSICAL => out.extend_from_slice(&physical(disc)),
        // No protection system, playable in every region.
        COPYRIGHT => out.extend_from_slice(&[0; 4]),
        MANUFACTURING => out.extend_from_slice(&[0; CONTROL_DATA]),
        _ => return Err(CheckCondition::INVALID_FIELD),
    }
    // The length field does not count itself.
    let length = (out.len() - start - 2) as u16;
    out[start..start + 2].copy_from_slice(&length.to_be_bytes());
    Ok(be16(cdb, 8).into())
}

fn physical(disc: Disc) -> [u8; CONTROL_DATA] {
    let mut data = [0; CONTROL_DATA];
    // DVD-ROM, version 1; 120 mm, no speed stated; one embossed layer.
    data[..3].copy_from_slice(&[0x01, 0x0F, 0x01]);
    // Sector numbers have 24 bits, so a larger disc reports the highest number.
    let last = FIRST_SECTOR.saturating_add(disc.blocks - 1).min(0xFF_FFFF);
    data[4..8].copy_from_slice(&FIRST_SECTOR.to_be_bytes());
    data[8..12].copy_from_slice(&last.to_be_bytes());
    data
}
