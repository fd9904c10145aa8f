//! `cargo xtask compare display`: the screen by VNC compared with QEMU's, its standard VGA card.
//!
//! The same guest draws the same animations, and the same viewer sees them, in alternation. Each
//! frame has a number, so a frame counts only when the viewer has all of it.

mod cases;
mod round;
mod rows;
mod side;
mod viewer;

use guest_images::{GuestBuilder, GuestImage, StockKernel};

use super::comparison::{Comparison, run};
use super::options::Arguments;
use super::plot::Panel;
use super::progress::Progress;
use super::rounds::{Key, Round};
use super::rows::Row;
use cases::Case;
use round::Run;
use side::Side;

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    let cases = arguments.wanted(Case::all(arguments.quick), Case::name)?;
    run(Display { cases }, arguments)
}

struct Display {
    cases: Vec<Case>,
}

impl Comparison for Display {
    const NAME: &'static str = "display";
    const PANELS: &'static [Panel] = &[
        ("_frames", "frames a second"),
        ("_delay", "delay of a frame"),
        ("_bytes", "bytes a frame"),
        ("_device_cpu", "device CPU"),
        ("_vmm_cpu", "all CPU"),
    ];
    type Runs = [Run; 2];

    fn guest(&self) -> Result<GuestImage, String> {
        let modules = ["atkbd", "hyperv_keyboard", "hid_hyperv", "hyperv_drm", "bochs"];
        let builder = GuestBuilder::full(StockKernel::ALL[0]).without_programs();
        let builder = modules.into_iter().fold(builder, |builder, name| builder.module(name, true));
        builder.build().map_err(|error| error.to_string())
    }

    fn loads(&self) -> usize {
        self.cases.len() * 2
    }

    fn measure(
        &mut self,
        guest: &GuestImage,
        (cpus, number): Key,
        progress: &mut Progress,
    ) -> Result<Vec<[Run; 2]>, String> {
        round::measure(number, Side::both(guest, cpus)?, &self.cases, progress)
    }

    fn rows(&self, rounds: &[Round<[Run; 2]>]) -> Vec<Row> {
        rows::all(&self.cases, rounds)
    }
}
