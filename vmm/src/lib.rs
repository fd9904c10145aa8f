//! SynthVM library: the machine behind the `synthvm` program.

pub mod cli;
pub mod config;
pub mod control;
pub mod inspect;
pub mod doctor;
