//! The costs of a load, and the rows that all loads have.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::cost::Cost;
use super::machine::Machine;

/// The costs of one machine from the begin to the end of a load.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Load {
    pub(super) cost: Cost,
    pub(super) interrupts: f64,
    /// Seconds by xtask's clock, including the time around the load.
    pub(super) seconds: f64,
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

    /// Returns the smallest costs of two runs of `work`, a load of nearly nothing.
    pub(super) fn of_nearly_nothing(
        machine: &mut Machine,
        mut work: impl FnMut(&mut Machine) -> Result<(), String>,
    ) -> Result<Load, String> {
        let first = Load::measure(machine, &mut work)?;
        Ok(first.with(Load::measure(machine, work)?, f64::min))
    }

    /// Returns the load without the costs of `nothing`, a load of nearly nothing, and with all its
    /// seconds.
    pub(super) fn without(self, nothing: Load) -> Load {
        let own = self.with(nothing, |own, nothing| (own - nothing).max(0.0));
        Load { seconds: self.seconds, ..own }
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
