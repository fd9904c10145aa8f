//! REPORT LUNS (spec storvsc section 5.1).

use super::CheckCondition;

/// SELECT REPORT: well known logical units only. There are none.
const WELL_KNOWN_ONLY: u8 = 0x01;

/// Appends the list of `luns` (ascending), cut to `limit` bytes. The length field in it stays that
/// of the whole list.
///
/// # Errors
/// 5/24/00 for an unknown SELECT REPORT value.
pub fn report_luns(
    select: u8,
    luns: impl Iterator<Item = u8>,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), CheckCondition> {
    if select > 2 {
        return Err(CheckCondition::INVALID_FIELD);
    }
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    if select != WELL_KNOWN_ONLY {
        for lun in luns {
            out.extend_from_slice(&[0, lun, 0, 0, 0, 0, 0, 0]);
        }
    }
    let length = u32::try_from(out.len() - start - 8).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    out.truncate(start + limit);
    Ok(())
}
