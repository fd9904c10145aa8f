//! A round: both machines from boot to power-off, with each case once on each, in alternation.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::cases::Case;
use super::cost::Cost;
use super::fio::{self, Measured};
use super::machine::Machine;
use super::progress::Progress;
use super::rounds;
use super::side::Side;

/// Jobs of the nearly empty loads, which come first in a round. The smallest result for each number
/// of jobs is the cost of the gates.
const NEARLY_NOTHING: [u32; 4] = [1, 1, 4, 4];

/// The results of both machines in a round.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Round {
    cpus: u32,
    number: u32,
    /// By case, in the given order: SynthVM's and the peer's.
    pub(super) runs: Vec<[Run; 2]>,
}

/// A case on one machine.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) measured: Measured,
    /// The load without the cost of the gates.
    pub(super) load: Load,
}

/// The costs of one machine from gate to gate.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Load {
    pub(super) cost: Cost,
    pub(super) interrupts: f64,
    /// Seconds by xtask's clock, including the time around the load.
    pub(super) seconds: f64,
}

impl rounds::Round for Round {
    fn key(&self) -> rounds::Key {
        (self.cpus, self.number)
    }
}

impl Round {
    /// Measures all cases on both machines, and powers them off.
    ///
    /// # Errors
    /// A message: a guest was lost, or fio failed.
    pub(super) fn measure(
        (cpus, number): (u32, u32),
        mut sides: [Side; 2],
        cases: &[Case],
        progress: &mut Progress,
    ) -> Result<Round, String> {
        let nearly_nothing = NEARLY_NOTHING.map(Case::nearly_nothing);
        let all: Vec<&Case> = nearly_nothing.iter().chain(cases).collect();
        for side in &mut sides {
            let (scheduler, clock) = (side.scheduler()?, side.machine.clock()?);
            progress.say(&format!(
                "{}: scheduler of {} {scheduler}, clock {clock}",
                side.machine.name, side.disk
            ));
            side.machine.write(fio::JOB, fio::jobs(all.iter().copied(), side.disk))?;
            side.machine.write(fio::GATE, fio::GATE_SCRIPT.to_owned())?;
            go_on(&mut side.machine, &fio::START, fio::AT_GATE)?;
        }
        let mut loads = [Vec::new(), Vec::new()];
        for (index, case) in (number as usize..).zip(&all) {
            for which in if index % 2 == 0 { [0, 1] } else { [1, 0] } {
                let load = Load::measure(&mut sides[which].machine, |machine| {
                    go_on(machine, &fio::THROUGH, fio::AT_GATE)
                })?;
                if loads[which].len() >= nearly_nothing.len() {
                    let work = format!("{} requests", case.requests);
                    progress.count(sides[which].machine.name, &case.name(), &work, load.seconds);
                }
                loads[which].push(load);
            }
        }
        let [ours, peer] = sides;
        let [our_loads, peer_loads] = loads;
        let (ours, peer) = (finish(ours, &all, &our_loads)?, finish(peer, &all, &peer_loads)?);
        let runs = ours.into_iter().zip(peer).map(|(ours, peer)| [ours, peer]).collect();
        Ok(Round { cpus, number, runs })
    }
}

/// Returns fio's results without the costs of the gates, and powers the guest off.
fn finish(mut side: Side, all: &[&Case], loads: &[Load]) -> Result<Vec<Run>, String> {
    go_on(&mut side.machine, &fio::THROUGH, fio::ENDED_WELL)?;
    side.machine.run(&fio::GATHER)?;
    let way = |jobs: u32| {
        let alike = NEARLY_NOTHING.iter().zip(loads).filter(|(of, _)| **of == jobs);
        alike.map(|(_, load)| *load).reduce(|a, b| a.with(b, f64::min)).unwrap_or_default()
    };
    let (one, four) = (way(1), way(4));
    let mut runs = Vec::new();
    for (index, (case, load)) in all.iter().zip(loads).enumerate().skip(NEARLY_NOTHING.len()) {
        let line = side.machine.run(&fio::show(index).each_ref().map(String::as_str))?;
        let measured = Measured::parse(&line, case)
            .map_err(|error| format!("{}: {error}", side.machine.name))?;
        let way = if case.jobs == 1 { one } else { four };
        runs.push(Run { measured, load: load.with(way, |own, way| (own - way).max(0.0)) });
    }
    side.machine.power_off()?;
    Ok(runs)
}

/// Runs a step of fio, which must end at the gate `place`.
fn go_on(machine: &mut Machine, step: &[&str], place: &str) -> Result<(), String> {
    let said = machine.run(step)?;
    if said.trim() == place {
        return Ok(());
    }
    let why = machine.run(&fio::EXPLAIN).unwrap_or_default();
    Err(format!("{}: fio came to {:?}, not to {place:?}: {why}", machine.name, said.trim()))
}

impl Load {
    /// Measures the costs of `work` on a machine.
    pub(super) fn measure(
        machine: &mut Machine,
        work: impl FnOnce(&mut Machine) -> Result<(), String>,
    ) -> Result<Load, String> {
        let interrupts = machine.interrupts()?;
        let before = machine.cost()?;
        let start = Instant::now();
        work(machine)?;
        let seconds = start.elapsed().as_secs_f64();
        let cost = machine.cost()?.with(before, |after, before| after - before);
        Ok(Load { cost, interrupts: machine.interrupts()? - interrupts, seconds })
    }

    /// Combines each number with that of `other`.
    pub(super) fn with(self, other: Load, of: impl Fn(f64, f64) -> f64) -> Load {
        Load {
            interrupts: of(self.interrupts, other.interrupts),
            seconds: of(self.seconds, other.seconds),
            cost: self.cost.with(other.cost, of),
        }
    }
}
