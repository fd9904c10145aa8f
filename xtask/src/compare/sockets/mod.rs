//! `cargo xtask compare sockets`: host sockets compared with QEMU's vhost-vsock, whose device is in
//! the host's kernel.
//!
//! Both machines are up at the same time and take turns, in alternating order. The guests run the
//! same program on AF_VSOCK. At the other end the same programs of the host run on Unix sockets for
//! SynthVM, and on AF_VSOCK for the peer.

mod cases;
mod host_program;
mod round;
mod rows;
mod side;

use guest_images::{GuestBuilder, GuestImage, StockKernel};
use integration_tests::image::WorkDir;
use integration_tests::program;

use super::cost;
use super::options::Arguments;
use super::plot;
use super::rounds::{self, CPUS};
use cases::Case;
use round::Round;

/// The results file of the inner half: the finished rounds.
const FINDINGS: &str = "compare-sockets.json";

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
        .module("virtio_pci", true)
        .module("hv_sock", false)
        .module("vmw_vsock_virtio_transport", false)
        .build()
        .map_err(|error| error.to_string())?;
    let rounds: Vec<Round> = arguments.rounds("sockets", FINDINGS, &guest, &program)?;
    arguments.output.write(&rows::all(cases, &CPUS, &rounds), &PANELS)
}

fn inside(guest: &GuestImage, cases: &[Case], count: u32) -> Result<(), String> {
    cost::prepare()?;
    side::serve_peer()?;
    rounds::measure_missing(FINDINGS, count, cases.len() * 2, |key, progress| {
        let dir = WorkDir::new().map_err(|error| format!("a folder for sockets: {error}"))?;
        Round::measure(key, side::all(guest, key.0, &dir)?, cases, progress)
    })
}
