//! `cargo xtask host -- CMD`: runs a command on a KVM with Hyper-V support.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use integration_tests::host::{self, HostKernel, HostOptions, Place};

use crate::number;

/// Exit status: the command's own (128 + N if signal N ended it); 124 if it hung and was killed;
/// 125 if the test host failed; 126 and 127 if the command could not be run.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Inside, files of this machine are visible at their own paths. Files that it \
        writes are lost, except below $SYNTHVM_RESULTS.\nExit status: the command's own; 124 hung \
        and killed; 125 the test host failed; 126 or 127 the command could not be run."
)]
pub(crate) struct Arguments {
    /// Always use an emulated machine.
    #[arg(long, conflicts_with = "here")]
    emulated: bool,
    /// Always run the command on this machine.
    #[arg(long)]
    here: bool,
    /// Memory of an emulated machine, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 8192, value_parser = number::<u32>(1024..))]
    memory: u32,
    /// Processors of an emulated machine. With more than one, machines are sometimes lost.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number::<u32>(1..=64))]
    cpus: u32,
    /// Kill a command that writes nothing for this many seconds.
    #[arg(
        long,
        value_name = "SECS",
        default_value_t = 600,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    timeout: u64,
    /// The folder that $SYNTHVM_RESULTS names; its files are kept.
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// The distribution suite whose kernel an emulated machine runs.
    #[arg(long, value_name = "SUITE", default_value = "bookworm")]
    suite: String,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    let mut options = HostOptions {
        place: match (arguments.emulated, arguments.here) {
            (true, _) => Place::Emulated,
            (_, true) => Place::Here,
            _ => Place::Auto,
        },
        memory_mib: arguments.memory,
        cpus: arguments.cpus,
        quiet_limit: Duration::from_secs(arguments.timeout),
        kernel: HostKernel::Suite(arguments.suite.clone()),
        ..HostOptions::default()
    };
    if let Some(results) = &arguments.results {
        options.results = std::path::absolute(results).unwrap_or_else(|_| results.clone());
    }
    match host::run(&arguments.command, &options) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("cargo xtask host: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
