//! Raw images on this machine's own storage, by every way of reaching the kernel. Needs no KVM.

use std::path::PathBuf;

use super::Output;
use super::in_process::InProcess;

/// Where the image lies, and where to leave the numbers.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    output: Output,
    /// Put the 256 MiB image there instead of cargo's target folder: a file system that does
    /// direct I/O.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    let mut bench = InProcess::new("synthvm-block", "raw")?;
    if let Some(directory) = &arguments.directory {
        let directory = std::path::absolute(directory).map_err(|error| error.to_string())?;
        let word = directory.to_str().ok_or("--directory: the path is not UTF-8")?;
        bench = bench.argument("--directory").argument(word);
    }
    if let Some(only) = &arguments.only {
        bench = bench.argument("--only").argument(only);
    }
    bench.run(&arguments.output)
}
