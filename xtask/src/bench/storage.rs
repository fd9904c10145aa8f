//! The storage device path in one process: a guest's ring, SCSI, a RAM disk, completions. Needs no
//! KVM.

use super::Counted;

pub(super) fn main(arguments: &Counted) -> Result<(), String> {
    arguments.bench("synthvm-storvsp", "storage")?.run(&arguments.output)
}
