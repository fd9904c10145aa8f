//! A round: both machines from boot to power-off, with balloons of half of their memory.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::cost::Cost;
use super::super::machine::Machine;
use super::super::progress::Progress;
use super::super::rounds;
use super::side::{BALLOON_MIB, MEMORY_MIB, Side};

/// Timeout of a change.
const LIMIT: Duration = Duration::from_secs(120);

/// Time between two looks at the size.
const INTERVAL: Duration = Duration::from_millis(10);

/// Share of the balloon that the host must have back, as the guest uses some of its memory.
const RETURNED: f64 = 0.9;

/// The changes, in the order of measurement.
pub(super) const CHANGES: [Change; 2] = [Change::Inflate, Change::Deflate];

/// A change of the guest's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The guest gives half of its memory to the host.
    Inflate,
    /// It gets it back.
    Deflate,
}

impl Change {
    /// Returns the name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Change::Inflate => "inflate",
            Change::Deflate => "deflate",
        }
    }

    fn size_mib(self) -> u32 {
        match self {
            Change::Inflate => MEMORY_MIB - BALLOON_MIB,
            Change::Deflate => MEMORY_MIB,
        }
    }
}

/// A change on one machine.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Run {
    /// Seconds from the command to the size.
    pub(super) seconds: f64,
    /// The costs in that time.
    pub(super) cost: Cost,
}

/// Measures all changes on both machines, and powers them off. Returns the results by change, in
/// the order of [`CHANGES`]: SynthVM's and the peer's.
///
/// # Errors
/// A message: a guest was lost, did not reach a size, or the host did not get the memory.
pub(super) fn measure(
    number: u32,
    mut sides: [Side; 2],
    progress: &mut Progress,
) -> Result<Vec<[Run; 2]>, String> {
    // The host has all memory of both guests, as if programs had used it.
    for side in &mut sides {
        progress.say(&format!("{}: the guest writes to its memory", side.machine.name));
        side.use_all_memory()?;
    }
    let runs = rounds::take_turns(number, &CHANGES, |which, change| {
        let run = Run::measure(&mut sides[which], *change)?;
        let work = format!("{BALLOON_MIB} MiB");
        progress.count(sides[which].machine.name, change.name(), &work, run.seconds);
        Ok(run)
    })?;
    for side in sides {
        side.machine.power_off()?;
    }
    Ok(runs)
}

impl Run {
    fn measure(side: &mut Side, change: Change) -> Result<Run, String> {
        let resident = side.machine.resident()?;
        let before = side.machine.cost()?;
        let size = change.size_mib();
        let start = Instant::now();
        side.machine.set_memory(size)?;
        loop {
            let now = side.machine.memory_mib()?;
            if now.abs_diff(size) <= 1 {
                break;
            }
            if start.elapsed() > LIMIT {
                let name = side.machine.name;
                return Err(format!("{name} has {now} MiB, and not {size}, after {LIMIT:?}"));
            }
            std::thread::sleep(INTERVAL);
        }
        let seconds = start.elapsed().as_secs_f64();
        let cost = side.machine.cost()?.with(before, |after, before| after - before);
        if change == Change::Inflate {
            check_returned(&side.machine, resident)?;
        }
        Ok(Run { seconds, cost })
    }
}

/// Checks that the host has the memory back: that of the process has shrunk by it.
fn check_returned(machine: &Machine, before: u64) -> Result<(), String> {
    let after = machine.resident()?;
    let returned = before.saturating_sub(after) as f64 / f64::from(1 << 20);
    if returned >= RETURNED * f64::from(BALLOON_MIB) {
        return Ok(());
    }
    Err(format!(
        "{}: the host has {returned:.0} MiB back, not {BALLOON_MIB} MiB ({before} bytes before, \
         {after} after)",
        machine.name
    ))
}
