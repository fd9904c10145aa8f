//! `cargo xtask compare storage`: a disk on VMBus beside QEMU's virtio-blk.
//!
//! Both machines are up at the same time and take turns, in alternating order, so that what disturbs one disturbs the other. Times in an
//! emulated host say little alone, and are good for comparing; counts are exact.

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

/// How often each case is measured; `--quick`: once.
const ROUNDS: usize = 2;

/// Machines are compared with so many vCPUs.
const CPUS: [u32; 2] = [1, 2];

/// What to compare and where to leave it.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Write the numbers there, as a JSON array of {case, unit, synthvm, peer, ratio}, and a picture of the ratios beside it (.svg). A ratio
    /// of 1 or more is for SynthVM.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A third of the requests, and each case once.
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
        Some(guest) => inside(&guest, &cases, if arguments.quick { 1 } else { ROUNDS }),
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

fn inside(guest: &GuestImage, cases: &[Case], rounds: usize) -> Result<(), String> {
    cost::prepare()?;
    let medium = Medium::new()?;
    let mut progress = Progress::new(cases.len() * CPUS.len() * rounds * 2);
    progress.say(&format!("images: {}", medium.what));
    let mut rows = Vec::new();
    for cpus in CPUS {
        progress.say(&format!("booting both machines, {cpus} vCPUs each"));
        let mut sides =
            [Side::synthvm(guest, medium.ours(), cpus)?, Side::qemu(guest, medium.peers(), cpus)?];
        let mut idle = Vec::new();
        for side in &mut sides {
            idle.push(Idle::measure(side)?);
            let scheduler = side.scheduler()?;
            progress.say(&format!("{}: {}'s scheduler is {scheduler}", side.name, side.disk));
        }
        let mut sums: Vec<[Sum; 2]> = cases.iter().map(|_| Default::default()).collect();
        for turn in 0..rounds {
            for (index, (case, sums)) in cases.iter().zip(&mut sums).enumerate() {
                let order = if (turn + index) % 2 == 0 { [0, 1] } else { [1, 0] };
                for which in order {
                    let run = Run::measure(case, &mut sides[which])?.less(idle[which].of(case));
                    progress.count(&sides[which], case, &run);
                    sums[which].add(&run);
                }
            }
        }
        for (case, [ours, peer]) in cases.iter().zip(&sums) {
            rows.extend(compare(&format!("{}_{cpus}vcpu", case.name()), ours, peer));
        }
        // What there is so far is kept, whatever comes.
        inner::leave(ROWS, &rows)?;
        for side in sides {
            side.power_off()?;
        }
    }
    Ok(())
}

/// What one run of fio did and cost.
#[derive(Debug, Clone, Copy)]
struct Run {
    measured: Measured,
    cost: Cost,
    interrupts: f64,
}

impl Run {
    fn measure(case: &Case, side: &mut Side) -> Result<Run, String> {
        side.write(fio::JOB, fio::job(case, side.disk))?;
        side.write(fio::GATE, fio::GATE_SCRIPT.to_owned())?;
        side.run(&fio::MAKE_PIPES)?;
        go_on(side, &fio::START, fio::BEFORE)?;
        let interrupts = side.interrupts()?;
        let before = side.cost()?;
        go_on(side, &fio::THROUGH, fio::AFTER)?;
        let after = side.cost()?;
        let interrupts = side.interrupts()? - interrupts;
        go_on(side, &fio::THROUGH, fio::ENDED)?;
        let result = side.run(&fio::SHOW)?;
        let measured = Measured::parse(&result, case).map_err(|error| format!("{}: {error}", side.name))?;
        Ok(Run { measured, cost: after.with(before, |after, before| after - before), interrupts })
    }

    /// Without what it costs to do nearly nothing.
    fn less(mut self, idle: &Run) -> Run {
        let minus = |own: f64, idle: f64| (own - idle).max(0.0);
        self.cost = self.cost.with(idle.cost, minus);
        self.interrupts = minus(self.interrupts, idle.interrupts);
        self
    }
}

/// Runs a step of fio's, which must bring it to a place.
fn go_on(side: &mut Side, step: &[&str], place: &str) -> Result<(), String> {
    let said = side.run(step)?;
    if said.trim() == place {
        return Ok(());
    }
    let why = side.run(&fio::EXPLAIN).unwrap_or_default();
    Err(format!("{}: fio came to \"{}\", not to \"{place}\": {why}", side.name, said.trim()))
}

/// What the way from gate to gate costs without a load to speak of, by number of jobs.
struct Idle {
    one: Run,
    four: Run,
}

impl Idle {
    fn measure(side: &mut Side) -> Result<Idle, String> {
        // The first start reads programs and libraries for the first time.
        Run::measure(&Case::nearly_nothing(1), side)?;
        let one = Run::measure(&Case::nearly_nothing(1), side)?;
        Ok(Idle { one, four: Run::measure(&Case::nearly_nothing(4), side)? })
    }

    fn of(&self, case: &Case) -> &Run {
        if case.jobs == 1 { &self.one } else { &self.four }
    }
}

/// All runs of a case on one machine.
#[derive(Debug, Default)]
struct Sum {
    runs: f64,
    requests: f64,
    seconds: f64,
    p99_us: f64,
    cost: Cost,
    interrupts: f64,
}

impl Sum {
    fn add(&mut self, run: &Run) {
        self.runs += 1.0;
        self.requests += run.measured.requests;
        self.seconds += run.measured.seconds;
        self.p99_us += run.measured.p99_us;
        self.cost = self.cost.with(run.cost, |sum, run| sum + run);
        self.interrupts += run.interrupts;
    }
}

fn compare(case: &str, ours: &Sum, peer: &Sum) -> Vec<Row> {
    let row = |what: &str, unit: &str, better: Better, least: f64, of: fn(&Sum) -> f64| {
        Row::new(format!("{case}_{what}"), unit, [of(ours), of(peer)], better, least)
    };
    // One in all requests: less cannot be told from nothing.
    let once = 1.0 / ours.requests.max(1.0);
    let less = Better::Less;
    vec![
        row("iops", "1/s", Better::More, 0.0, |sum| sum.requests / sum.seconds),
        row("p99", "us", less, 0.0, |sum| sum.p99_us / sum.runs),
        row("vmm_cpu", "us per I/O", less, 0.01, |sum| {
            (sum.cost.vcpu_seconds + sum.cost.device_seconds) * 1e6 / sum.requests
        }),
        row("device_cpu", "us per I/O", less, 0.01, |sum| sum.cost.device_seconds * 1e6 / sum.requests),
        row("device_sleeps", "sleeps per I/O", less, once, |sum| sum.cost.device_sleeps / sum.requests),
        row("exits", "exits per I/O", less, once, |sum| sum.cost.exits / sum.requests),
        row("user_exits", "exits per I/O", less, once, |sum| sum.cost.user_exits / sum.requests),
        row("interrupts", "interrupts per I/O", less, once, |sum| sum.interrupts / sum.requests),
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

    fn count(&mut self, side: &Side, case: &Case, run: &Run) {
        self.done += 1;
        let Measured { requests, seconds, p99_us } = run.measured;
        self.say(&format!(
            "{:7}  {:20}  {:>8.0} I/Os a second, p99 {p99_us:.0} us",
            side.name,
            case.name(),
            requests / seconds
        ));
    }
}
