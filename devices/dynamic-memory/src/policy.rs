//! How much memory the guest shall have: a state machine without time of its own and without I/O.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::protocol::Pressure;

/// Pages of a MiB.
const MIB: u64 = 256;

/// Maximum pages of one balloon request: the guest answers within a moment, and can be given pages
/// back soon when its demand rises.
pub(crate) const MAX_BALLOON: u64 = 256 * MIB;

/// Maximum pages of one hot add.
const MAX_HOT_ADD: u64 = 1024 * MIB;

/// Differences below this number of pages change nothing.
const DEAD_BAND: u64 = 16 * MIB;

/// Reports in a row that must show less demand before the guest is asked for pages by the policy.
/// The guest sends one each second.
const CALM_REPORTS: u32 = 10;

/// The bounds of a guest's memory, in pages of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The guest keeps at least this much.
    pub min: u64,
    /// The memory that the guest boots with: `min` to `max`.
    pub start: u64,
    /// It never has more.
    pub max: u64,
    /// Memory beyond its demand, in percent of the demand.
    pub buffer_percent: u32,
    /// Time after its driver's start in which the guest is not asked for pages by the policy, as
    /// the demand of a booting guest says little.
    pub start_delay: Duration,
}

/// What the host knows of a guest, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guest {
    /// RAM that it booted with and that was added, with the pages in the balloon.
    pub(crate) present: u64,
    /// Pages in the balloon.
    pub(crate) ballooned: u64,
    /// The alignment of added memory. `None`: no memory can be added now.
    pub(crate) hot_add_alignment: Option<u64>,
    /// Pages that the host can still add.
    pub(crate) window: u64,
    /// Whether the guest has a balloon.
    pub(crate) has_balloon: bool,
}

/// The next request to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// None.
    Nothing,
    /// Ask for this number of pages.
    Balloon(u64),
    /// Give back this number of pages of the balloon.
    Unballoon(u64),
    /// Add this number of pages.
    HotAdd(u64),
}

/// The policy's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    /// The size that a user wants. `None`: the policy chooses.
    wanted: Option<u64>,
    /// The last report. `None`: there was none since the driver's start.
    pressure: Option<Pressure>,
    /// The demand of the last report, in pages. The balloon that it counts is that of its time.
    demand: u64,
    /// Pages that the guest has given since the report.
    given: u64,
    /// Reports in a row that showed far less demand than the guest has.
    calm: u32,
    /// The guest gave less than it was asked for, or the host has no memory to give: the next
    /// attempt waits for a report.
    short: bool,
}

impl Policy {
    pub(crate) fn new(wanted: Option<u64>) -> Self {
        Self { wanted, pressure: None, demand: 0, given: 0, calm: 0, short: false }
    }

    /// Sets the size that a user wants. `None`: the policy chooses.
    pub(crate) fn set_wanted(&mut self, wanted: Option<u64>) {
        self.wanted = wanted;
        self.calm = 0;
    }

    /// Returns the size that a user wants.
    pub(crate) fn wanted(&self) -> Option<u64> {
        self.wanted
    }

    /// Forgets all reports: the guest's driver is gone.
    pub(crate) fn forget_guest(&mut self) {
        *self = Self::new(self.wanted);
    }

    /// Notes that the guest gave less than it was asked for, or the host has no memory to give.
    pub(crate) fn fell_short(&mut self) {
        self.short = true;
    }

    /// Returns the last report.
    pub(crate) fn pressure(&self) -> Option<Pressure> {
        self.pressure
    }

    /// Takes a report. No request must be in progress: both ends would count another balloon.
    pub(crate) fn report(&mut self, pressure: Pressure, bounds: &Bounds, guest: &Guest) {
        self.pressure = Some(pressure);
        // The guest counts the balloon as promised. A number beyond all memory is no measurement.
        self.demand = pressure.committed.saturating_sub(guest.ballooned).min(bounds.max);
        self.given = 0;
        self.short = false;
        let assigned = guest.present.saturating_sub(guest.ballooned);
        let is_less = self.by_demand(bounds).is_some_and(|size| size + DEAD_BAND <= assigned);
        self.calm = if is_less { self.calm.saturating_add(1) } else { 0 };
    }

    /// Notes that the guest gave pages, or took them.
    pub(crate) fn gave(&mut self, pages: u64) {
        self.given = self.given.saturating_add(pages);
    }

    /// Returns the guest's demand in pages: what its programs were promised, and the floor that it
    /// needs itself. `None`: no report has come.
    pub(crate) fn demand(&self) -> Option<u64> {
        self.pressure.map(|_| self.demand)
    }

    /// Returns the size that the demand needs.
    fn by_demand(&self, bounds: &Bounds) -> Option<u64> {
        let demand = self.demand()?;
        let buffer = demand.saturating_mul(bounds.buffer_percent.into()) / 100;
        Some(demand.saturating_add(buffer).clamp(bounds.min, bounds.max))
    }

    /// Returns the size that the guest shall have: what the user wants, but never less than the
    /// guest's demand and the buffer. `None`: no report has come.
    pub(crate) fn target(&self, bounds: &Bounds) -> Option<u64> {
        let demand = self.by_demand(bounds)?;
        Some(self.wanted.map_or(demand, |wanted| wanted.clamp(demand, bounds.max)))
    }

    /// Returns the next request. `age`: the time since the driver's start.
    pub(crate) fn step(&self, bounds: &Bounds, guest: &Guest, age: Duration) -> Step {
        let Some(target) = self.target(bounds).filter(|_| !self.short) else {
            return Step::Nothing;
        };
        let assigned = guest.present.saturating_sub(guest.ballooned);
        if target > assigned {
            return grow(target - assigned, bounds, guest);
        }
        let is_wanted = self.wanted.is_some();
        let excess = assigned - target;
        let is_early = !is_wanted && (age < bounds.start_delay || self.calm < CALM_REPORTS);
        let dead_band = if is_wanted { MIB } else { DEAD_BAND };
        if excess < dead_band || is_early || !guest.has_balloon {
            return Step::Nothing;
        }
        // Half of what is available now, so that the guest can grow until the next report.
        let available = self.pressure.map_or(0, |pressure| pressure.available);
        let pages = excess.min(available.saturating_sub(self.given) / 2).min(MAX_BALLOON);
        if pages < MIB { Step::Nothing } else { Step::Balloon(pages) }
    }
}

/// Returns the request that gives the guest `missing` pages more: those of the balloon first.
fn grow(missing: u64, bounds: &Bounds, guest: &Guest) -> Step {
    if guest.ballooned > 0 {
        return Step::Unballoon(missing.min(guest.ballooned));
    }
    let Some(alignment) = guest.hot_add_alignment.filter(|_| missing >= MIB) else {
        return Step::Nothing;
    };
    let most = bounds.max.saturating_sub(guest.present).min(MAX_HOT_ADD.max(alignment));
    let most = most.min(guest.window);
    match missing.next_multiple_of(alignment).min(most / alignment * alignment) {
        0 => Step::Nothing,
        pages => Step::HotAdd(pages),
    }
}

#[cfg(test)]
mod tests;
