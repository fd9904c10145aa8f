//! Conversion of system calls to changes of the power loss simulator, for tests.

use super::call::{Call, Memory};
use crate::conformance::powerloss::{Change, Ticket, Trace};

/// Records the issue of `call`, if it changes the file.
pub(super) fn issue(trace: &Trace, call: Call) -> Option<Ticket> {
    let change = match call {
        Call::Read { .. } => return None,
        Call::Write { memory, offset, durable, .. } => {
            Change::Write { offset, bytes: copy(memory), durable }
        }
        Call::Sync => Change::Sync,
        // Both modes of fallocate in use keep the file's length.
        Call::Allocate { offset, length, .. } | Call::DiscardBlocks { offset, length } => {
            Change::Zero { offset, length }
        }
    };
    Some(trace.issue(change))
}

/// Records the result of a call: the count of a write, or a negative error number.
pub(super) fn complete(trace: &Trace, ticket: Ticket, result: i32) {
    trace.complete(ticket, usize::try_from(result).map(Some).map_err(|_| ()));
}

fn copy(memory: Memory) -> Vec<u8> {
    // SAFETY: a call's memory is valid until it is complete. Only tests record, and they do not
    // change the memory meanwhile.
    unsafe {
        match memory {
            Memory::One(base, length) => std::slice::from_raw_parts(base, length as usize).to_vec(),
            Memory::Many(pieces, count) => {
                let pieces = std::slice::from_raw_parts(pieces, count as usize);
                let bytes = |piece: &libc::iovec| {
                    std::slice::from_raw_parts(piece.iov_base.cast::<u8>(), piece.iov_len)
                };
                pieces.iter().flat_map(bytes).copied().collect()
            }
        }
    }
}
