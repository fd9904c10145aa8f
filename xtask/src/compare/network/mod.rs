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

use guest_images::{GuestBuilder, GuestImage, StockKernel};
use integration_tests::program;

use super::cost;
use super::options::Arguments;
use super::plot;
use super::rounds::{self, CPUS};
use cases::Case;
use round::Round;
use side::Side;

/// The results file of the inner half: the finished rounds.
const FINDINGS: &str = "compare-network.json";

/// The panels of the picture.
const PANELS: [plot::Panel; 4] = [
    ("_speed", "speed"),
    ("_vmm_cpu", "processor time"),
    ("_exits", "exits"),
    ("_interrupts", "interrupts"),
];

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    let cases = arguments.wanted(Case::all(arguments.quick), Case::name)?;
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
    let rounds: Vec<Round> = arguments.rounds("network", FINDINGS, &guest, &program)?;
    arguments.output.write(&rows::all(cases, &CPUS, &rounds), &PANELS)
}

fn inside(guest: &GuestImage, cases: &[Case], count: u32) -> Result<(), String> {
    cost::prepare()?;
    tap::serve_echo()?;
    rounds::measure_missing(FINDINGS, count, cases.len() * side::COUNT, |key, progress| {
        Round::measure(key, Side::all(guest, key.0)?, cases, progress)
    })
}
