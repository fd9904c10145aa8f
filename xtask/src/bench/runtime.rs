//! The runtime of backends compared with a hand-written loop. Needs no KVM.

use super::Output;
use super::in_process::InProcess;

pub(super) fn main(output: &Output) -> Result<(), String> {
    InProcess::new("vmbus-device", "runtime")?.run(output)
}
