//! Raw images on this machine's storage, with each I/O interface of the kernel. Needs no KVM.

use std::path::PathBuf;

use super::Output;
use super::in_process::InProcess;

/// The options of `cargo xtask bench raw`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    output: Output,
    /// Folder for the 256 MiB image, instead of cargo's target folder; its file system must support
    /// direct I/O.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Run only cases whose name contains this text.
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
