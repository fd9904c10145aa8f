//! `cargo xtask compare WHAT --json FILE`: SynthVM beside what a user of KVM would take today, in
//! one run.

mod cases;
mod cost;
mod fio;
mod medium;
mod plot;
mod progress;
mod round;
mod rows;
mod side;
mod storage;

use std::process::ExitCode;

/// What to compare.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// A disk on VMBus with QEMU's virtio-blk: the same guest, the same fio, both machines side by
    /// side.
    Storage(storage::Arguments),
}

pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    let done = match &arguments.what {
        What::Storage(arguments) => storage::main(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask compare: {error}");
            ExitCode::FAILURE
        }
    }
}
