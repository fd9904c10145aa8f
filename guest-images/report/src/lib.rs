//! The types of the protocols between SynthVM's process-1 programs and the tests.

pub mod agent;
pub mod animation;
pub mod host;
pub mod pattern;
pub mod records;
