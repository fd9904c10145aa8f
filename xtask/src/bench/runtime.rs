//! The runtime of backends beside a loop that is written by hand. Needs no KVM.

use super::Output;
use super::in_process::InProcess;

pub(super) fn main(output: &Output) -> Result<(), String> {
    InProcess::new("vmbus-device", "runtime")?.run(output)
}
