//! `cargo xtask compare network`: a VMBus network card compared with QEMU's virtio-net, by QEMU
//! itself and by the host kernel's vhost.
//!
//! All three machines are up at the same time and take turns, in rotating order, so that a
//! disturbance affects all; the result is the median of several rounds. Each has a TAP interface of
//! its own, at whose other end the host's iperf3 and an echo server answer.

mod cases;
mod iperf;
mod round;
mod round_trips;
mod rows;
mod side;
mod tap;

use std::path::PathBuf;

use guest_images::{GuestBuilder, GuestImage, StockKernel};
use integration_tests::host::HostOptions;
use integration_tests::program;

use super::cost;
use super::plot;
use super::progress::Progress;
use super::rows as table;
use crate::inner::{self, Inside};
use cases::Case;
use round::Round;
use side::Side;

/// The results file of the inner half: the finished rounds.
const FINDINGS: &str = "compare-network.json";

/// The numbers of vCPUs of the compared machines.
const CPUS: [u32; 2] = [1, 2];

/// Limit of rounds that may be lost with their host, as in the comparison of disks.
const LOSSES: u32 = 8;

/// The panels of the picture.
const PANELS: [plot::Panel; 4] = [
    ("_speed", "speed"),
    ("_vmm_cpu", "processor time"),
    ("_exits", "exits"),
    ("_interrupts", "interrupts"),
];

/// The options of `cargo xtask compare network`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write the numbers to this file, as a JSON array of {case, unit, synthvm, peer, ratio}, and a
    /// picture of the ratios next to it (.svg). A ratio above 1 is in favour of SynthVM.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run each load for one second instead of three.
    #[arg(long)]
    quick: bool,
    /// Run only cases whose names contain this text, such as `tcp_send`.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: String,
    /// Number of rounds: measurements of each case on each machine. The result is the median.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Continue with the rounds of an interrupted comparison of the same cases, instead of
    /// repeating all.
    #[arg(long)]
    resume: bool,
    /// Processors of an emulated host. With more than one, guests are sometimes lost.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    host_cpus: u32,
    #[command(flatten)]
    inside: Inside,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    let all = Case::all(arguments.quick);
    let names: Vec<String> = all.iter().map(Case::name).collect();
    let cases: Vec<Case> =
        all.into_iter().filter(|case| case.name().contains(&arguments.only)).collect();
    if cases.is_empty() {
        return Err(format!(
            "--only {}: no case has such a name; there are {}",
            arguments.only,
            names.join(", ")
        ));
    }
    match arguments.inside.guest() {
        Some(guest) => inside(&guest, &cases, arguments.rounds),
        None => outside(arguments, &cases),
    }
}

fn outside(arguments: &Arguments, cases: &[Case]) -> Result<(), String> {
    // The release build is measured, because users run it.
    let program = program::build_release()?;
    let guest = GuestBuilder::stock(StockKernel::ALL[0])
        .without_programs()
        .module("hv_netvsc", true)
        .module("virtio_pci", true)
        .module("virtio_net", true)
        .package("iperf3", &["usr/bin/iperf3"])
        .build()
        .map_err(|error| error.to_string())?;
    // The inner half has no network: the cache must have them.
    iperf::packages()?;
    let rounds = arguments.rounds.to_string();
    let words = ["compare", "network", "--only", &arguments.only, "--rounds", &rounds];
    let mut words = words.map(str::to_owned).to_vec();
    words.extend(arguments.quick.then(|| "--quick".to_owned()));
    if !arguments.resume {
        inner::forget(FINDINGS)?;
    }
    let host = HostOptions { cpus: arguments.host_cpus, ..HostOptions::default() };
    let rounds: Vec<Round> =
        inner::run_until_done(FINDINGS, &words, &guest, &program, &host, LOSSES)?;
    let rows = rows::all(cases, &CPUS, &rounds);
    table::print(&rows);
    let Some(file) = &arguments.json else { return Ok(()) };
    table::write(&rows, file)?;
    let picture = file.with_extension("svg");
    let drawn = plot::draw(&rows, &PANELS)?;
    table::write_text(&picture, &drawn).map_err(|error| format!("{}: {error}", picture.display()))
}

/// Runs the missing rounds, and saves each immediately, so that it survives the loss of this host.
fn inside(guest: &GuestImage, cases: &[Case], count: u32) -> Result<(), String> {
    cost::prepare()?;
    let mut rounds: Vec<Round> = inner::left(FINDINGS)?.unwrap_or_default();
    let per_round = cases.len() * side::COUNT;
    // All numbers of vCPUs in each round, so that partial results cover all of them.
    let wanted = (0..count).flat_map(|number| CPUS.map(|cpus| (cpus, number)));
    let missing: Vec<(u32, u32)> =
        wanted.filter(|key| rounds.iter().all(|round| round.key() != *key)).collect();
    let mut progress =
        Progress::new(rounds.len() * per_round, (rounds.len() + missing.len()) * per_round);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    progress.say(&format!("processors of the host, for all threads of all machines: {processors}"));
    for (cpus, number) in missing {
        progress.say(&format!(
            "round {} of {count}: booting the machines, {cpus} vCPUs each",
            number + 1
        ));
        let sides = Side::all(guest, cpus)?;
        rounds.push(Round::measure((cpus, number), sides, cases, &mut progress)?);
        inner::leave(FINDINGS, &rounds)?;
    }
    Ok(())
}
