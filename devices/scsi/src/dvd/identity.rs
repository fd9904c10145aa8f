//! INQUIRY of a DVD drive: Hyper-V's standard data, and VPD pages 0x00 and 0x83.

use super::super::fields::be16;
use super::super::inquiry::VENDOR;
use super::super::{CheckCondition, DiskIdentity};
use super::Answer;

/// Bytes of standard INQUIRY data.
const STANDARD_LEN: usize = 96;

const CD_DVD: u8 = 0x05;
const REMOVABLE: u8 = 0x80;
const RESPONSE_FORMAT: u8 = 0x02;
const PRODUCT: &[u8; 16] = b"Virtual DVD-ROM ";
const REVISION: &[u8; 4] = b"1.0 ";

const SUPPORTED_PAGES: u8 = 0x00;
const DEVICE_IDENTIFICATION: u8 = 0x83;

pub(super) fn inquiry(
    cdb: &[u8; 16],
    room: u32,
    identity: &DiskIdentity,
    out: &mut Vec<u8>,
) -> Answer {
    let (vital_data, command_data) = (cdb[1] & 0x01 != 0, cdb[1] & 0x02 != 0);
    let allocation = u32::from(be16(cdb, 3));
    if command_data || (!vital_data && cdb[2] != 0) || allocation > room {
        return Err(CheckCondition::INVALID_FIELD);
    }
    if vital_data {
        page(cdb[2], identity, out)?;
    } else {
        out.extend_from_slice(&standard());
    }
    Ok(allocation)
}

/// Returns the standard data. The version stays 0 (no claim), as with Hyper-V: Linux does not use
/// the version of an MMC drive.
fn standard() -> [u8; STANDARD_LEN] {
    let mut data = [0; STANDARD_LEN];
    data[0] = CD_DVD;
    data[1] = REMOVABLE;
    data[3] = RESPONSE_FORMAT;
    data[4] = const { (STANDARD_LEN - 5) as u8 };
    data[8..16].copy_from_slice(VENDOR);
    data[16..32].copy_from_slice(PRODUCT);
    data[32..36].copy_from_slice(REVISION);
    data
}

fn page(page: u8, identity: &DiskIdentity, out: &mut Vec<u8>) -> Result<(), CheckCondition> {
    match page {
        SUPPORTED_PAGES => {
            out.extend_from_slice(&[CD_DVD, page, 0, 2, SUPPORTED_PAGES, DEVICE_IDENTIFICATION]);
        }
        DEVICE_IDENTIFICATION => {
            // T10 vendor id: binary, associated with the logical unit.
            out.extend_from_slice(&[CD_DVD, page, 0, 28, 0x01, 0x01, 0, 24]);
            out.extend_from_slice(VENDOR);
            out.extend_from_slice(&identity.guid);
        }
        _ => return Err(CheckCondition::INVALID_FIELD),
    }
    Ok(())
}
