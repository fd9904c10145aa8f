//! SynthVM library: the machine behind the `synthvm` program.

pub mod acpi;
pub mod boot;
pub mod cli;
pub mod config;
pub mod control;
pub mod devices;
pub mod disks;
pub mod doctor;
mod guest_log;
pub mod hyperv;
pub mod inspect;
pub mod machine;
pub mod memory;
pub mod unix_socket;

/// The guest of storvsp's tests, for tests that need requests in flight.
#[cfg(test)]
#[path = "../../devices/storvsp/tests/guest/mod.rs"]
mod storage_guest;
