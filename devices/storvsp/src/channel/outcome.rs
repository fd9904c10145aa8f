//! Completions of commands that need no I/O.

use synthvm_block::IoBuffer;
use synthvm_scsi::{CheckCondition, Decision};

use crate::protocol::{Completer, Completion};

/// Returns the completion of a decision that needs no I/O, after writing its data to the guest.
pub(super) fn complete_inline(
    completer: &Completer,
    decision: &Result<Decision, CheckCondition>,
    reply: &[u8],
    buffer: &IoBuffer,
) -> Completion {
    match decision {
        Err(condition) => completer.check(*condition),
        Ok(Decision::Conflict) => completer.conflict(),
        Ok(Decision::Reply) if !reply.is_empty() => {
            match buffer.guest().map(|guest| guest.write(0, reply)) {
                Some(Ok(())) => completer.good(reply.len() as u32),
                _ => completer.check(CheckCondition::INVALID_FIELD),
            }
        }
        Ok(_) => completer.good(completer.sent()),
    }
}
