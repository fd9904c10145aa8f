//! The network path in one process: a guest's ring, NVSP and RNDIS, a backend, completions. Needs no
//! KVM.

use super::Output;
use super::in_process::InProcess;

/// The options of `cargo xtask bench network`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    output: Output,
    /// Measure everything once instead of five times.
    #[arg(long)]
    quick: bool,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    let bench = InProcess::new("synthvm-netvsp", "network")?.valgrind()?;
    let bench = if arguments.quick { bench.argument("--quick") } else { bench };
    bench.run(&arguments.output)
}
