//! The conformance suite of backends: checks that the tests of any crate can call (feature
//! `conformance`).
//!
//! * [`check`]: transfers, ranges, batches, queues, zeroes, discards, extents, sizes, and a long
//!   random script against a model.
//! * [`check_read_only`]: no request can change the content, and all of it can be read.
//! * [`check_faults`]: errors below the backend at every point. No error is hidden, no acknowledged
//!   change is lost, and no flush wrongly succeeds.
//! * [`check_reopen`]: all flushed data is there after the backend is dropped without a further
//!   call and opened again.
//!
//! Each check takes a function that makes backends, and panics if one does not conform. [`run`],
//! [`one`] and [`over`] drive a queue in other tests.

mod clearing;
mod drive;
mod faults;
mod gate;
mod model;
pub mod powerloss;
mod reopen;
pub mod seam;
mod sizes;
#[cfg(test)]
mod tests;
mod transfers;

use std::sync::Arc;

use super::{Backend, IoError, Operation};
pub use drive::{one, over, pattern, run, wait};
pub use faults::{FaultPlan, check_faults};
pub use gate::Gate;
pub use model::Model;
pub use reopen::check_reopen;
#[cfg(test)]
pub(crate) use transfers::{guest_buffer, guest_ram};

/// Capacity in bytes of the backends that the checks use.
pub const CAPACITY: u64 = 8 << 20;

/// A write without force unit access.
pub(super) const WRITE: Operation = Operation::Write { fua: false };

/// Checks a writable backend. `make` returns a fresh one each time: [`CAPACITY`] bytes, all zero,
/// in blocks of 512 bytes.
///
/// # Panics
/// The backend does not conform.
pub fn check(make: impl Fn() -> Arc<dyn Backend>) {
    for check in [
        transfers::check,
        clearing::check,
        sizes::check,
        model::check_one_by_one,
        model::check_in_batches,
        model::check_on_two_queues,
    ] {
        let backend = make();
        let geometry = backend.geometry();
        assert_eq!(geometry.capacity, CAPACITY, "the suite's capacity");
        assert!(!geometry.read_only, "a writable medium");
        assert!(!backend.identity().is_empty(), "an identity");
        assert!(geometry.physical_block_size.is_power_of_two());
        check(&backend);
    }
}

/// Checks a read-only backend. `make` returns one of [`CAPACITY`] bytes, all zero, in blocks of 512
/// bytes.
///
/// # Panics
/// The backend does not conform.
pub fn check_read_only(make: impl Fn() -> Arc<dyn Backend>) {
    let backend = make();
    assert!(backend.geometry().read_only);
    let mut queue = backend.queue().expect("a queue");
    for fua in [false, true] {
        let written = one(&mut *queue, Operation::Write { fua }, 512, vec![1; 512]);
        assert_eq!(written, Err(IoError::ReadOnly), "a write");
    }
    for operation in [
        Operation::Discard,
        Operation::WriteZeroes { unmap: false },
        Operation::WriteZeroes { unmap: true },
    ] {
        assert_eq!(over(&mut *queue, operation, 0, 4096), Err(IoError::ReadOnly), "{operation:?}");
    }
    assert_eq!(
        one(&mut *queue, Operation::Flush, 0, vec![]),
        Ok(vec![]),
        "nothing to flush is no error"
    );
    assert_eq!(one(&mut *queue, Operation::Read, 0, vec![1; 8192]), Ok(vec![0; 8192]));
    assert!(backend.resize(CAPACITY * 2).is_err(), "a read-only medium keeps its size");
}
