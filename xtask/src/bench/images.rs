//! The number of instructions that image formats add to a request. Needs no KVM.

use super::Output;
use super::in_process::InProcess;

pub(super) fn main(output: &Output) -> Result<(), String> {
    InProcess::new("synthvm-images", "images")?.valgrind()?.run(output)
}
