//! Tests of real guests end to end, and the test host that provides a real KVM on any machine.

pub mod agent;
pub mod browser;
pub mod console;
pub mod firmware;
pub mod host;
pub mod image;
pub mod inspect;
pub mod iso;
pub mod losses;
pub mod order;
pub mod picture;
pub mod program;
pub mod qemu;
pub mod ram_disk;
pub mod runner;
pub mod shards;
pub mod summary;
pub mod traces;
pub mod vm;
pub mod vnc;
