//! The answers of a LUN without a logical unit, so that no guest sees a phantom disk (spec storvsc
//! section 5.1).

use super::{CheckCondition, Command, Transfer, inquiry};

/// Decides `command`, the result of [`Command::parse`], for the absent `lun`. `Some(Ok)`: the
/// answer is in `out`. `None`: the command ends in INVALID_LUN.
///
/// INQUIRY must not fail: guests take a failed INQUIRY for an empty answer, and an empty answer for
/// a disk.
pub fn execute_absent(
    command: &Result<Command, CheckCondition>,
    is_inquiry: bool,
    lun: u8,
    transfer: Transfer,
    out: &mut Vec<u8>,
) -> Option<Result<(), CheckCondition>> {
    const SHORTEST: u16 = 5;
    if !is_inquiry {
        return None;
    }
    let Ok(Command::Inquiry { page: None, allocation }) = *command else {
        return Some(Err(CheckCondition::INVALID_FIELD));
    };
    let fits = u32::from(allocation) <= transfer.length();
    if allocation < SHORTEST || !fits || !matches!(transfer, Transfer::ToGuest(_)) {
        return Some(Err(CheckCondition::INVALID_FIELD));
    }
    let data = inquiry::absent(lun);
    out.extend_from_slice(&data[..data.len().min(allocation.into())]);
    Some(Ok(()))
}
