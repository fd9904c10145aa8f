//! `cargo xtask compare storage`: a VMBus disk compared with QEMU's virtio-blk.
//!
//! Both machines are up at the same time and alternate, in alternating order, so that a disturbance
//! affects both; the result is the median of several rounds. Times in an emulated host are only
//! valid for comparison; counts are exact.

use guest_images::{GuestBuilder, GuestImage, StockKernel};
use integration_tests::host::is_emulated;
use integration_tests::program;

use super::cases::Case;
use super::cost;
use super::medium::Medium;
use super::options::Arguments;
use super::plot;
use super::round::{Round, Run};
use super::rounds::{self, CPUS, Round as _};
use super::rows::{Better, Row, middle};
use super::side::Side;

/// The results file of the inner half: the finished rounds.
const FINDINGS: &str = "compare-storage.json";

/// The panels of the picture.
const PANELS: [plot::Panel; 5] = [
    ("_iops", "I/Os a second"),
    ("_p99", "p99 latency"),
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
        .module("virtio_blk", true)
        .package("fio", &["usr/bin/fio"])
        .build()
        .map_err(|error| error.to_string())?;
    let rounds: Vec<Round> = arguments.rounds("storage", FINDINGS, &guest, &program)?;
    arguments.output.write(&rows_of(cases, &rounds), &PANELS)
}

fn inside(guest: &GuestImage, cases: &[Case], count: u32) -> Result<(), String> {
    cost::prepare()?;
    if is_emulated() {
        allow_large_pages()?;
    }
    let medium = Medium::new()?;
    eprintln!("  .. images: {}", medium.what);
    rounds::measure_missing(FINDINGS, count, cases.len() * 2, |(cpus, number), progress| {
        let sides =
            [Side::synthvm(guest, medium.ours(), cpus)?, Side::qemu(guest, medium.peers(), cpus)?];
        Round::measure((cpus, number), sides, cases, progress)
    })
}

/// Allows large pages for memory files that request them, as `synthvm doctor` advises. The memory
/// of QEMU's guest has them by default.
fn allow_large_pages() -> Result<(), String> {
    let file = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    std::fs::write(file, "advise").map_err(|error| format!("{file}: {error}"))
}

/// Returns all numbers, by vCPUs and case.
fn rows_of(cases: &[Case], rounds: &[Round]) -> Vec<Row> {
    let mut rows = Vec::new();
    for cpus in CPUS {
        let of_machine = || rounds.iter().filter(|round| round.key().0 == cpus);
        for (index, case) in cases.iter().enumerate() {
            let runs = |side: usize| -> Vec<Run> {
                of_machine().filter_map(|round| Some(*round.runs.get(index)?.get(side)?)).collect()
            };
            rows.extend(compare(&format!("{}_{cpus}vcpu", case.name()), &runs(0), &runs(1)));
        }
    }
    rows
}

fn compare(case: &str, ours: &[Run], peer: &[Run]) -> Vec<Row> {
    let row = |what: &str, unit: &str, better: Better, least: f64, of: fn(&Run) -> f64| {
        Row::new(
            format!("{case}_{what}"),
            unit,
            [ours, peer].map(|runs| middle(runs, of)),
            better,
            least,
        )
    };
    // The smallest measurable value: one event in all requests.
    let once = 1.0 / middle(ours, |run| run.measured.requests);
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
    use super::super::fio::Measured;
    use super::super::round::Load;
    use super::*;

    fn run(p99_us: f64) -> Run {
        Run { measured: Measured { requests: 100.0, seconds: 0.5, p99_us }, load: Load::default() }
    }

    #[test]
    fn test_compare_takes_the_middle_of_the_rounds() {
        let rows = compare("a", &[run(9.0), run(1.0), run(2.0)], &[run(4.0), run(4.0), run(900.0)]);
        let p99 = rows.iter().find(|row| row.case == "a_p99").unwrap();
        assert_eq!((p99.synthvm, p99.peer, p99.ratio), (2.0, 4.0, 2.0));
        assert_eq!(rows[0].synthvm, 200.0);
    }
}
