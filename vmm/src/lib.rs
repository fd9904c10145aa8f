//! SynthVM library: the machine behind the `synthvm` program.

pub mod cli;
pub mod config;
pub mod control;
pub mod inspect;
pub mod doctor;
pub mod acpi;
pub mod boot;
pub mod devices;
pub mod hyperv;
pub mod machine;
pub mod memory;
