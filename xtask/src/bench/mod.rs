//! `cargo xtask bench WHAT --json FILE`: measures, prints a table and writes an array of numbers.

mod boot;
mod core;
mod idle;
mod images;
mod in_process;
mod network;
mod raw;
mod runtime;
mod scaling_plot;
mod sockets;
mod storage;
mod table;

use std::path::PathBuf;

use in_process::InProcess;

/// The benchmark to run.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum What {
    /// The program around a real guest: start times, memory, exits at boot and for each disk
    /// request.
    Boot(boot::Arguments),
    /// An idle machine with all integration services: wake-ups of the program's threads in a
    /// minute.
    Idle(idle::Arguments),
    /// The zero-copy core in one process: GPADLs, views and rings, compared with the machine's
    /// minimum costs. Takes seconds.
    Core(Output),
    /// The storage device path in one process: 4 KiB requests from a guest's ring to a RAM disk, in
    /// time and in instructions. Takes a minute.
    Storage(Counted),
    /// The network path in one process: frames between a guest's ring and a backend, compared with
    /// a bare message through a ring, in time and in instructions. Takes two minutes.
    Network(Counted),
    /// The instructions that VHDX and qcow2 add to a request whose location is known, compared with
    /// a raw image. Takes half a minute.
    Images(Output),
    /// The runtime of backends: small requests through a handler, compared with a hand-written
    /// loop. Takes seconds.
    Runtime(Output),
    /// Host sockets in one process: bytes between a guest's ring and a program, compared with a
    /// bare pair of Unix sockets. Takes seconds.
    Sockets(Output),
    /// Raw images on this machine's storage: random requests by threads, io_uring, and io_uring
    /// with fixed buffers. Takes four minutes.
    Raw(raw::Arguments),
}

/// The destination of the numbers.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// Write the numbers to this file, as a JSON array of {name, unit, value, limit, ratio,
    /// target}.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The options of a bench in its own program that also counts instructions.
#[derive(Debug, clap::Args)]
pub(crate) struct Counted {
    #[command(flatten)]
    output: Output,
    /// Measure everything once instead of five times.
    #[arg(long)]
    quick: bool,
}

impl Counted {
    /// Returns the bench `bench` of `package`.
    fn bench(&self, package: &str, bench: &str) -> Result<InProcess, String> {
        let bench = InProcess::new(package, bench)?.valgrind()?;
        Ok(if self.quick { bench.argument("--quick") } else { bench })
    }
}

pub(crate) fn main(what: &What) -> Result<(), String> {
    match what {
        What::Boot(arguments) => boot::main(arguments),
        What::Idle(arguments) => idle::main(arguments),
        What::Core(output) => core::main(output),
        What::Storage(arguments) => storage::main(arguments),
        What::Network(arguments) => network::main(arguments),
        What::Images(output) => images::main(output),
        What::Runtime(output) => runtime::main(output),
        What::Sockets(output) => sockets::main(output),
        What::Raw(arguments) => raw::main(arguments),
    }
}
