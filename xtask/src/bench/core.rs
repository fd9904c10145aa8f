//! The zero-copy core in one process: GPADLs, views and rings, each compared with a physical limit
//! measured in the same run. Needs no KVM.

use super::Output;
use super::in_process::InProcess;

pub(super) fn main(output: &Output) -> Result<(), String> {
    InProcess::new("vmbus-loopback", "core")?.run(output)
}
