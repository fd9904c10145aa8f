//! The storage device path in one process: a guest's ring, SCSI, a RAM disk, completions. Needs no
//! KVM.

use super::Output;
use super::in_process::InProcess;

/// The options of `cargo xtask bench storage`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    output: Output,
    /// Measure everything once instead of five times.
    #[arg(long)]
    quick: bool,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    let bench = InProcess::new("synthvm-storvsp", "storage")?.valgrind()?;
    let bench = if arguments.quick { bench.argument("--quick") } else { bench };
    bench.run(&arguments.output)
}
