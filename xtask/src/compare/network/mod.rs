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

use super::comparison::{Comparison, run};
use super::options::Arguments;
use super::plot::Panel;
use super::progress::Progress;
use super::rounds::{Key, Round};
use super::rows::Row;
use cases::Case;
use round::Run;
use side::{COUNT, Side};

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    let cases = arguments.wanted(Case::all(arguments.quick), Case::name)?;
    run(Network { cases }, arguments)
}

struct Network {
    cases: Vec<Case>,
}

impl Comparison for Network {
    const NAME: &'static str = "network";
    const PANELS: &'static [Panel] = &[
        ("_speed", "speed"),
        ("_vmm_cpu", "processor time"),
        ("_exits", "exits"),
        ("_interrupts", "interrupts"),
    ];
    type Runs = [Run; COUNT];

    fn guest(&self) -> Result<GuestImage, String> {
        // The inner half has no network: the cache must have them.
        iperf::packages()?;
        let builder = GuestBuilder::stock(StockKernel::ALL[0]).without_programs();
        let modules = ["hv_netvsc", "virtio_pci", "virtio_net"];
        let builder = modules.into_iter().fold(builder, |builder, name| builder.module(name, true));
        let guest = builder.package("iperf3", &["usr/bin/iperf3"]).build();
        guest.map_err(|error| error.to_string())
    }

    fn loads(&self) -> usize {
        self.cases.len() * COUNT
    }

    fn prepare(&mut self) -> Result<(), String> {
        tap::serve_echo()
    }

    fn measure(
        &mut self,
        guest: &GuestImage,
        (cpus, number): Key,
        progress: &mut Progress,
    ) -> Result<Vec<[Run; COUNT]>, String> {
        round::measure(number, Side::all(guest, cpus)?, &self.cases, progress)
    }

    fn rows(&self, rounds: &[Round<[Run; COUNT]>]) -> Vec<Row> {
        rows::all(&self.cases, rounds)
    }
}
