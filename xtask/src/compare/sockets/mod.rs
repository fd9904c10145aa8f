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

use super::comparison::{Comparison, run};
use super::options::Arguments;
use super::plot::Panel;
use super::progress::Progress;
use super::rounds::{Key, Round};
use super::rows::Row;
use cases::Case;
use round::Run;

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    let cases = arguments.wanted(Case::all(arguments.quick), Case::name)?;
    run(Sockets { cases }, arguments)
}

struct Sockets {
    cases: Vec<Case>,
}

impl Comparison for Sockets {
    const NAME: &'static str = "sockets";
    const PANELS: &'static [Panel] = &[
        ("_speed", "speed"),
        ("_vmm_cpu", "processor time"),
        ("_exits", "exits"),
        ("_interrupts", "interrupts"),
    ];
    type Runs = [Run; 2];

    fn guest(&self) -> Result<GuestImage, String> {
        GuestBuilder::stock(StockKernel::ALL[0])
            .without_programs()
            .module("virtio_pci", true)
            .module("hv_sock", false)
            .module("vmw_vsock_virtio_transport", false)
            .build()
            .map_err(|error| error.to_string())
    }

    fn loads(&self) -> usize {
        self.cases.len() * 2
    }

    fn prepare(&mut self) -> Result<(), String> {
        side::serve_peer()
    }

    fn measure(
        &mut self,
        guest: &GuestImage,
        (cpus, number): Key,
        progress: &mut Progress,
    ) -> Result<Vec<[Run; 2]>, String> {
        let dir = WorkDir::new().map_err(|error| format!("a folder for sockets: {error}"))?;
        round::measure(number, side::all(guest, cpus, &dir)?, &self.cases, progress)
    }

    fn rows(&self, rounds: &[Round<[Run; 2]>]) -> Vec<Row> {
        rows::all(&self.cases, rounds)
    }
}
