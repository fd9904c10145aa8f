//! What our process-1 programs and the tests say to each other, as types that both share.

pub mod agent;
pub mod host;
pub mod pattern;
pub mod records;
