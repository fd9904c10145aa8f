//! Completions of commands that need no I/O, and the bytes that operations move.

use synthvm_block::{IoBuffer, Operation};
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

/// Whether the operation moves bytes between guest and backend; else its length is only that of a
/// range.
pub(super) fn moves_bytes(operation: Operation) -> bool {
    matches!(operation, Operation::Read | Operation::Write { .. })
}
