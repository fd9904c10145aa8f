//! The program `synthvm`: command line, configuration, disks, control, reports.

pub mod cli;
pub mod config;
pub mod control;
pub mod disks;
pub mod display;
pub mod doctor;
pub mod dynamic_memory;
pub mod inspect;
pub mod networks;
pub mod services;
pub mod trace;
pub mod vsock;
pub mod web;

/// The guest of storvsp's tests, for tests that need requests in flight.
#[cfg(test)]
#[path = "../../../devices/storvsp/tests/guest/mod.rs"]
mod storage_guest;
