//! Host sockets compared with a bare pair of Unix sockets. Needs no KVM.

use super::Output;
use super::in_process::InProcess;

pub(super) fn main(output: &Output) -> Result<(), String> {
    InProcess::new("synthvm-sockets", "sockets")?.run(output)
}
