//! `cargo xtask compare storage`: a VMBus disk compared with QEMU's virtio-blk.
//!
//! Both machines are up at the same time and alternate, in alternating order, so that a disturbance
//! affects both; the result is the median of several rounds. Times in an emulated host are only
//! valid for comparison; counts are exact.

mod cases;
mod fio;
mod medium;
mod round;
mod side;

use guest_images::{GuestBuilder, GuestImage, StockKernel};
use integration_tests::host::is_emulated;

use super::comparison::{Comparison, run};
use super::options::Arguments;
use super::plot::Panel;
use super::progress::Progress;
use super::rounds::{self, Key, Round};
use super::rows::{Better, Row, middle};
use cases::Case;
use medium::Medium;
use round::Run;
use side::Side;

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    let cases = arguments.wanted(Case::all(arguments.quick), Case::name)?;
    run(Storage { cases, medium: None }, arguments)
}

struct Storage {
    cases: Vec<Case>,
    /// The images. `None` in the outer half.
    medium: Option<Medium>,
}

impl Comparison for Storage {
    const NAME: &'static str = "storage";
    const PANELS: &'static [Panel] = &[
        ("_iops", "I/Os a second"),
        ("_p99", "p99 latency"),
        ("_vmm_cpu", "processor time"),
        ("_exits", "exits"),
        ("_interrupts", "interrupts"),
    ];
    type Runs = [Run; 2];

    fn guest(&self) -> Result<GuestImage, String> {
        let builder = GuestBuilder::stock(StockKernel::ALL[0]).without_programs();
        let modules = ["virtio_pci", "virtio_blk"];
        let builder = modules.into_iter().fold(builder, |builder, name| builder.module(name, true));
        let guest = builder.package("fio", &["usr/bin/fio"]).build();
        guest.map_err(|error| error.to_string())
    }

    fn loads(&self) -> usize {
        self.cases.len() * 2
    }

    fn prepare(&mut self) -> Result<(), String> {
        if is_emulated() {
            allow_large_pages()?;
        }
        let medium = self.medium.insert(Medium::new()?);
        eprintln!("  .. images: {}", medium.what);
        Ok(())
    }

    fn measure(
        &mut self,
        guest: &GuestImage,
        (cpus, number): Key,
        progress: &mut Progress,
    ) -> Result<Vec<[Run; 2]>, String> {
        let medium = self.medium.as_ref().ok_or("there are no images")?;
        let sides =
            [Side::synthvm(guest, medium.ours(), cpus)?, Side::qemu(guest, medium.peers(), cpus)?];
        round::measure(number, sides, &self.cases, progress)
    }

    fn rows(&self, rounds: &[Round<[Run; 2]>]) -> Vec<Row> {
        rounds::rows_of(rounds, &self.cases, Case::name, |name, _, runs| compare(name, runs))
    }
}

/// Allows large pages for memory files that request them, as `synthvm doctor` advises. The memory
/// of QEMU's guest has them by default.
fn allow_large_pages() -> Result<(), String> {
    let file = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    std::fs::write(file, "advise").map_err(|error| format!("{file}: {error}"))
}

/// Returns the numbers of a case, from the runs by machine.
fn compare(case: &str, runs: &[Vec<Run>]) -> Vec<Row> {
    let row = |what: &str, unit: &str, better: Better, least: f64, of: fn(&Run) -> f64| {
        let values = [0, 1].map(|machine| middle(&runs[machine], of));
        Row::new(format!("{case}_{what}"), unit, values, better, least)
    };
    // The smallest measurable value: one event in all requests.
    let once = 1.0 / middle(&runs[0], |run| run.measured.requests);
    let less = Better::Less;
    vec![
        row("iops", "1/s", Better::More, 0.0, |run| run.measured.requests / run.measured.seconds),
        row("p99", "us", less, 0.0, |run| run.measured.p99_us),
        row("vmm_cpu", "us per I/O", less, 0.01, |run| {
            (run.load.cost.vcpu_seconds + run.load.cost.device_seconds) * 1e6
                / run.measured.requests
        }),
        row("device_cpu", "us per I/O", less, 0.01, |run| {
            run.load.cost.device_seconds * 1e6 / run.measured.requests
        }),
        row("device_sleeps", "sleeps per I/O", less, once, |run| {
            run.load.cost.device_sleeps / run.measured.requests
        }),
        row("exits", "exits per I/O", less, once, |run| {
            run.load.cost.exits / run.measured.requests
        }),
        row("user_exits", "exits per I/O", less, once, |run| {
            run.load.cost.user_exits / run.measured.requests
        }),
        row("interrupts", "interrupts per I/O", less, once, |run| {
            run.load.interrupts / run.measured.requests
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::load::Load;
    use super::fio::Measured;
    use super::*;

    fn run(p99_us: f64) -> Run {
        Run { measured: Measured { requests: 100.0, seconds: 0.5, p99_us }, load: Load::default() }
    }

    #[test]
    fn test_compare_takes_the_middle_of_the_rounds() {
        let rows =
            compare("a", &[[9.0, 1.0, 2.0].map(run).to_vec(), [4.0, 4.0, 900.0].map(run).to_vec()]);
        let p99 = rows.iter().find(|row| row.case == "a_p99").unwrap();
        assert_eq!((p99.synthvm, p99.peer, p99.ratio), (2.0, 4.0, 2.0));
        assert_eq!(rows[0].synthvm, 200.0);
    }
}
