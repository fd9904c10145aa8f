//! What process 1 of a guest and of the test host have in common: system calls and modules.

pub mod modules;
pub mod sys;
