//! SynthVM library: the machine behind the `synthvm` program.

pub mod config;
