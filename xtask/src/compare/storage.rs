//! `cargo xtask compare storage`: a disk on VMBus beside QEMU's virtio-blk.
//!
//! Both machines are up at the same time and take turns, in alternating order, so that what disturbs one disturbs the other; the middle of
//! several rounds is taken. Times in an emulated host say little alone, and are good for comparing; counts are exact.

use std::path::PathBuf;
use std::time::Instant;

use guest_images::{GuestBuilder, GuestImage, StockKernel};
use integration_tests::program;

use super::cases::Case;
use super::cost::{self, Cost};
use super::fio::{self, Measured};
use super::medium::Medium;
use super::plot;
use super::rows::{self, Better, Row};
use super::side::Side;
use crate::inner::{self, Inside};

/// What the inner half leaves.
const ROWS: &str = "compare-storage.json";

/// How often each case is measured on each machine.
const ROUNDS: usize = 3;

/// Machines are compared with so many vCPUs.
const CPUS: [u32; 2] = [1, 2];

/// What to compare and where to leave it.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Write the numbers there, as a JSON array of {case, unit, synthvm, peer, ratio}, and a picture of the ratios beside it (.svg). A ratio
    /// of 1 or more is for SynthVM.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A quarter of the requests.
    #[arg(long)]
    quick: bool,
    /// Only cases whose names contain this, such as `randread_4k`.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: String,
    #[command(flatten)]
    inside: Inside,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    let cases: Vec<Case> =
        Case::all(arguments.quick).into_iter().filter(|case| case.name().contains(&arguments.only)).collect();
    if cases.is_empty() {
        let names: Vec<String> = Case::all(false).iter().map(Case::name).collect();
        return Err(format!(
            "--only {}: no case has such a name; there are {}",
            arguments.only,
            names.join(", ")
        ));
    }
    match arguments.inside.guest() {
        Some(guest) => inside(&guest, &cases),
        None => outside(arguments),
    }
}

fn outside(arguments: &Arguments) -> Result<(), String> {
    // Numbers are of the program as people run it.
    let program = program::build_release()?;
    let guest = GuestBuilder::stock(StockKernel::ALL[0])
        .without_programs()
        .module("virtio_pci", true)
        .module("virtio_blk", true)
        .package("fio", &["usr/bin/fio"])
        .build()
        .map_err(|error| error.to_string())?;
    let mut words = ["compare", "storage", "--only", &arguments.only].map(str::to_owned).to_vec();
    words.extend(arguments.quick.then(|| "--quick".to_owned()));
    let rows: Vec<Row> = inner::run(ROWS, &words, &guest, &program)?;
    rows::print(&rows);
    let Some(file) = &arguments.json else { return Ok(()) };
    rows::write(&rows, file)?;
    let picture = file.with_extension("svg");
    let drawn = plot::draw(&rows)?;
    rows::write_text(&picture, &drawn).map_err(|error| format!("{}: {error}", picture.display()))
}

fn inside(guest: &GuestImage, cases: &[Case]) -> Result<(), String> {
    cost::prepare()?;
    let medium = Medium::new()?;
    let mut progress = Progress::new(cases.len() * CPUS.len() * ROUNDS * 2);
    progress.say(&format!("images: {}", medium.what));
    let mut rows = Vec::new();
    for cpus in CPUS {
        progress.say(&format!("booting both machines, {cpus} vCPUs each"));
        let sides = [Side::synthvm(guest, medium.ours(), cpus)?, Side::qemu(guest, medium.peers(), cpus)?];
        for (case, [ours, peer]) in cases.iter().zip(take_turns(sides, cases, &mut progress)?) {
            rows.extend(compare(&format!("{}_{cpus}vcpu", case.name()), &ours, &peer));
        }
        // What there is so far is kept, whatever comes.
        inner::leave(ROWS, &rows)?;
    }
    Ok(())
}

/// Measures all cases on both machines, and powers them off. Gives back the rounds of both, case by case.
fn take_turns(
    mut sides: [Side; 2],
    cases: &[Case],
    progress: &mut Progress,
) -> Result<Vec<[Vec<Run>; 2]>, String> {
    let nearly_nothing = [1, 1, 1, 4, 4, 4].map(Case::nearly_nothing);
    let rounds = (0..ROUNDS).flat_map(|_| cases);
    let all: Vec<&Case> = nearly_nothing.iter().chain(rounds).collect();
    for side in &mut sides {
        let scheduler = side.scheduler()?;
        progress.say(&format!("{}: {}'s scheduler is {scheduler}; starting fio", side.name, side.disk));
        side.write(fio::JOB, fio::jobs(all.iter().copied(), side.disk))?;
        side.write(fio::GATE, fio::GATE_SCRIPT.to_owned())?;
        go_on(side, &fio::START, fio::AT_GATE)?;
    }
    let mut loads = [Vec::new(), Vec::new()];
    for (index, case) in all.iter().enumerate() {
        for which in if index % 2 == 0 { [0, 1] } else { [1, 0] } {
            let load = Load::measure(&mut sides[which])?;
            if index >= nearly_nothing.len() {
                progress.count(&sides[which], case, &load);
            }
            loads[which].push(load);
        }
    }
    let mut found: Vec<[Vec<Run>; 2]> = cases.iter().map(|_| Default::default()).collect();
    for (which, (mut side, loads)) in sides.into_iter().zip(loads).enumerate() {
        go_on(&mut side, &fio::THROUGH, fio::ENDED_WELL)?;
        side.run(&fio::GATHER)?;
        let idle = |jobs: u32| {
            let alike = nearly_nothing.iter().zip(&loads).filter(|(case, _)| case.jobs == jobs);
            alike.map(|(_, load)| *load).reduce(|a, b| a.with(b, f64::min)).unwrap_or_default()
        };
        let (one, four) = (idle(1), idle(4));
        for (index, (case, load)) in all.iter().zip(&loads).enumerate().skip(nearly_nothing.len()) {
            let line = side.run(&fio::show(index).each_ref().map(String::as_str))?;
            let measured = Measured::parse(&line, case).map_err(|error| format!("{}: {error}", side.name))?;
            let idle = if case.jobs == 1 { one } else { four };
            let load = load.with(idle, |own, idle| (own - idle).max(0.0));
            found[(index - nearly_nothing.len()) % cases.len()][which].push(Run { measured, load });
        }
        side.power_off()?;
    }
    Ok(found)
}

/// Runs a step of fio's, which must bring it to a place.
fn go_on(side: &mut Side, step: &[&str], place: &str) -> Result<(), String> {
    let said = side.run(step)?;
    if said.trim() == place {
        return Ok(());
    }
    let why = side.run(&fio::EXPLAIN).unwrap_or_default();
    Err(format!("{}: fio came to {:?}, not to {place:?}: {why}", side.name, said.trim()))
}

/// What one machine spent from gate to gate.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    cost: Cost,
    interrupts: f64,
    /// By our own clock, what is around the load included.
    seconds: f64,
}

impl Load {
    fn measure(side: &mut Side) -> Result<Load, String> {
        let interrupts = side.interrupts()?;
        let before = side.cost()?;
        let start = Instant::now();
        go_on(side, &fio::THROUGH, fio::AT_GATE)?;
        let seconds = start.elapsed().as_secs_f64();
        let cost = side.cost()?.with(before, |after, before| after - before);
        Ok(Load { cost, interrupts: side.interrupts()? - interrupts, seconds })
    }

    fn with(self, other: Load, of: impl Fn(f64, f64) -> f64) -> Load {
        Load {
            interrupts: of(self.interrupts, other.interrupts),
            seconds: of(self.seconds, other.seconds),
            cost: self.cost.with(other.cost, of),
        }
    }
}

/// One round of a case on one machine.
#[derive(Debug, Clone, Copy)]
struct Run {
    measured: Measured,
    /// Less what the way from gate to gate costs without a load to speak of.
    load: Load,
}

/// The middle of the rounds.
fn middle(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn compare(case: &str, ours: &[Run], peer: &[Run]) -> Vec<Row> {
    let row = |what: &str, unit: &str, better: Better, least: f64, of: fn(&Run) -> f64| {
        Row::new(format!("{case}_{what}"), unit, [ours, peer].map(|runs| middle(runs, of)), better, least)
    };
    // One in all requests: less cannot be told from nothing.
    let once = 1.0 / middle(ours, |run| run.measured.requests);
    let less = Better::Less;
    vec![
        row("iops", "1/s", Better::More, 0.0, |run| run.measured.requests / run.measured.seconds),
        row("p99", "us", less, 0.0, |run| run.measured.p99_us),
        row("vmm_cpu", "us per I/O", less, 0.01, |run| {
            (run.load.cost.vcpu_seconds + run.load.cost.device_seconds) * 1e6 / run.measured.requests
        }),
        row("device_cpu", "us per I/O", less, 0.01, |run| {
            run.load.cost.device_seconds * 1e6 / run.measured.requests
        }),
        row("device_sleeps", "sleeps per I/O", less, once, |run| {
            run.load.cost.device_sleeps / run.measured.requests
        }),
        row("exits", "exits per I/O", less, once, |run| run.load.cost.exits / run.measured.requests),
        row("user_exits", "exits per I/O", less, once, |run| {
            run.load.cost.user_exits / run.measured.requests
        }),
        row("interrupts", "interrupts per I/O", less, once, |run| {
            run.load.interrupts / run.measured.requests
        }),
    ]
}

/// Says how far it is.
struct Progress {
    start: Instant,
    done: usize,
    all: usize,
}

impl Progress {
    fn new(all: usize) -> Progress {
        Progress { start: Instant::now(), done: 0, all }
    }

    fn say(&self, what: &str) {
        let seconds = self.start.elapsed().as_secs();
        eprintln!("  .. {:>3}/{} {}:{:02}  {what}", self.done, self.all, seconds / 60, seconds % 60);
    }

    fn count(&mut self, side: &Side, case: &Case, load: &Load) {
        self.done += 1;
        let (name, seconds) = (case.name(), load.seconds);
        self.say(&format!("{:7}  {name:20}  {} requests in {seconds:.1} s", side.name, case.requests));
    }
}

#[cfg(test)]
mod tests {
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
