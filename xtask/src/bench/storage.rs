//! The storage device path in one process: a guest's ring, SCSI, a RAM disk, completions. Needs no KVM.

use guest_images::cache::Cache;
use guest_images::packages::Packages;

use super::Output;
use super::in_process::InProcess;

/// The suite that valgrind comes from: another version could count differently.
const SUITE: &str = "bookworm";

/// Where to leave the numbers, and how long to take.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    output: Output,
    /// Measure everything once instead of five times.
    #[arg(long)]
    quick: bool,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    // Instructions are counted by callgrind. Its package is unpacked, not installed.
    let valgrind =
        Packages::new(&Cache::project(), SUITE).get("valgrind").map_err(|error| error.to_string())?;
    let bench = InProcess::new("synthvm-storvsp", "storage")?
        .environment("SYNTHVM_VALGRIND", valgrind.root.join("usr/bin/valgrind.bin"))
        .environment("VALGRIND_LIB", valgrind.root.join("usr/libexec/valgrind"));
    let bench = if arguments.quick { bench.argument("--quick") } else { bench };
    bench.run(&arguments.output)
}
