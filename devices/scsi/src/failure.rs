//! Conversion of a backend's failures to sense data.

use synthvm_block::{IoError, Operation};

use crate::{CheckCondition, Sense};

/// Returns the check condition that reports `error` of `operation` (spec storvsc sections 6 and 7).
pub fn condition(error: IoError, operation: Operation) -> CheckCondition {
    CheckCondition::execution(match (error, operation) {
        (_, Operation::Read) => Sense::READ_ERROR,
        (IoError::NoSpace, _) => Sense::SPACE_ALLOCATION_FAILED,
        (IoError::ReadOnly, _) => Sense::WRITE_PROTECTED,
        _ => Sense::WRITE_ERROR,
    })
}
