//! A round: both machines from boot to power-off, with each case once on each, in alternation.

use serde::{Deserialize, Serialize};

use super::super::load::Load;
use super::super::machine::Machine;
use super::super::progress::Progress;
use super::super::rounds;
use super::cases::Case;
use super::fio::{self, Measured};
use super::side::Side;

/// Jobs of the nearly empty loads, which come first in a round. The smallest result for each number
/// of jobs is the cost of the gates.
const NEARLY_NOTHING: [u32; 4] = [1, 1, 4, 4];

/// A case on one machine.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) measured: Measured,
    /// The load without the cost of the gates.
    pub(super) load: Load,
}

/// Measures all cases on both machines, and powers them off. Returns the results by case: SynthVM's
/// and the peer's.
///
/// # Errors
/// A message: a guest was lost, or fio failed.
pub(super) fn measure(
    number: u32,
    mut sides: [Side; 2],
    cases: &[Case],
    progress: &mut Progress,
) -> Result<Vec<[Run; 2]>, String> {
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
    let numbered: Vec<(usize, &Case)> = all.iter().copied().enumerate().collect();
    let loads = rounds::take_turns(number, &numbered, |which, (index, case)| {
        let machine = &mut sides[which].machine;
        let load = Load::measure(machine, |machine| go_on(machine, &fio::THROUGH, fio::AT_GATE))?;
        if *index >= nearly_nothing.len() {
            let work = format!("{} requests", case.requests);
            progress.count(machine.name, &case.name(), &work, load.seconds);
        }
        Ok(load)
    })?;
    let (our_loads, peer_loads): (Vec<_>, Vec<_>) = loads.into_iter().map(<(_, _)>::from).unzip();
    let [ours, peer] = sides;
    let (ours, peer) = (finish(ours, &all, &our_loads)?, finish(peer, &all, &peer_loads)?);
    Ok(ours.into_iter().zip(peer).map(<[Run; 2]>::from).collect())
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
