//! What our process-1 programs and the tests say to each other, as types that both share.

pub mod host;
