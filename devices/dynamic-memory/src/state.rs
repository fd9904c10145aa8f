//! The device's state, which its owner and its channel share.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::{info, warn};
use vmbus_log::LogRateLimiter;

use crate::balloon::Balloon;
use crate::host::{HostMemory, PAGE};
use crate::policy::{Bounds, Guest, Policy, Step};
use crate::protocol::{
    Event, HotAddOutcome, MAX_UNBALLOON_RANGES, Outcome, PageRange, Pressure, Request, Session,
    Version,
};

/// Time after which the host gives up waiting for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Time after which memory is offered again to a guest that could not add it.
const HOT_ADD_RETRY: Duration = Duration::from_secs(30);

/// The counters of the device. They start at 0 with the device and never decrease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Counters {
    /// Memory reports of the guest.
    pub reports: u64,
    /// Requests to the guest.
    pub requests: u64,
    /// Requests that the guest did not answer within a minute.
    pub timeouts: u64,
    /// Pages that the guest gave.
    pub pages_ballooned: u64,
    /// Pages that the guest was given back.
    pub pages_unballooned: u64,
    /// Pages that were returned to the host, by the balloon or by hints.
    pub pages_returned: u64,
    /// Pages of the balloon that stay allocated, as a GPADL has them.
    pub pages_shared: u64,
    /// Pages that the guest reported to be free.
    pub pages_hinted: u64,
    /// Times that the host's kernel did not free pages, or did not allocate them again.
    pub host_errors: u64,
    /// Ranges of the guest that are no RAM, or were in the balloon already.
    pub ranges_refused: u64,
    /// Messages of the guest that were refused.
    pub messages_refused: u64,
}

/// A size that the guest cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the guest's memory is {min} to {max} bytes")]
pub struct SetError {
    /// The least, in bytes.
    pub min: u64,
    /// The most, in bytes.
    pub max: u64,
}

/// The sizes of a guest's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sizes {
    /// RAM that the guest has: it booted with it or added it, and it is not in the balloon.
    pub assigned: u64,
    /// Memory that was added since the machine's start.
    pub added: u64,
    /// Memory in the balloon.
    pub ballooned: u64,
    /// Memory of the balloon that the host has back.
    pub returned: u64,
    /// The host's memory that the guest's RAM takes.
    pub resident: u64,
    /// The guest's demand. `None`: it has not reported yet.
    pub demand: Option<u64>,
    /// Memory that the guest can use without swapping. `None`: as above.
    pub available: Option<u64>,
    /// The size that the guest shall have. `None`: as above.
    pub target: Option<u64>,
    /// The size that a user wants. `None`: the demand decides.
    pub wanted: Option<u64>,
}

/// The state of a guest's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The version of the guest's driver. `None`: there is none.
    pub version: Option<Version>,
    /// The bounds.
    pub bounds: Bounds,
    /// The sizes.
    pub sizes: Sizes,
    /// The request that the guest has not answered.
    pub request: Option<&'static str>,
    /// Time since the guest's last report. `None`: as above.
    pub report_age: Option<Duration>,
    /// The counters.
    pub counters: Counters,
}

/// The state of the device.
pub(crate) struct State {
    pub(crate) bounds: Bounds,
    host: Arc<dyn HostMemory>,
    pub(crate) balloon: Balloon,
    pub(crate) policy: Policy,
    pub(crate) counters: Counters,
    /// Pages that the guest added.
    pub(crate) added: u64,
    /// Memory that is plugged and that the guest could not add when it was offered.
    spare: Option<PageRange>,
    /// The driver of the guest. `None`: there is none.
    pub(crate) driver: Option<Driver>,
    log: LogRateLimiter,
}

/// What the host knows of the guest's driver, besides the protocol's state. Times are those of the
/// device's clock.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    /// A copy of the protocol's state, for reports.
    pub(crate) session: Session,
    /// When the driver became ready.
    pub(crate) since: Duration,
    last_report: Option<Duration>,
    /// When the request was sent that waits for its answer.
    asked_at: Duration,
    /// Pages that the present balloon request asks for, and those that came.
    asked: u64,
    came: u64,
    /// No memory is offered before this time.
    hot_add_after: Duration,
    /// The guest can add no memory at all.
    hot_add_refused: bool,
}

impl Driver {
    fn new(session: Session, since: Duration) -> Self {
        Self {
            session,
            since,
            last_report: None,
            asked_at: since,
            asked: 0,
            came: 0,
            hot_add_after: Duration::ZERO,
            hot_add_refused: false,
        }
    }
}

impl State {
    pub(crate) fn new(bounds: Bounds, host: Arc<dyn HostMemory>) -> Self {
        let balloon = Balloon::new(&host.regions(), host.unit());
        Self {
            bounds,
            host,
            balloon,
            policy: Policy::new(None),
            counters: Counters::default(),
            added: 0,
            spare: None,
            driver: None,
            log: LogRateLimiter::default(),
        }
    }

    /// Handles a packet of the guest. Returns the messages to it. `shared_pages` returns the pages
    /// of GPADLs.
    pub(crate) fn packet(
        &mut self,
        session: &mut Session,
        packet: &[u8],
        now: Duration,
        shared_pages: impl FnOnce() -> Vec<Range<u64>>,
    ) -> Vec<Vec<u8>> {
        let Outcome { mut replies, event, refused } = match session.handle(packet) {
            Ok(outcome) => outcome,
            Err(rejected) => {
                self.refuse(&rejected);
                return Vec::new();
            }
        };
        if let Some(refused) = refused {
            self.refuse(&refused);
        }
        match event {
            Event::None | Event::Unballooned => {}
            Event::Ready => {
                let version = session.version().map(tracing::field::display);
                info!(version, "the guest's driver of dynamic memory is ready");
                self.connect(session, now, Duration::ZERO);
            }
            Event::Pressure(pressure) => self.report(pressure, session, now),
            Event::Ballooned { ranges, is_last } => {
                self.balloon(&ranges, is_last, &shared_pages());
            }
            Event::HotAdded { range, outcome } => self.hot_added(range, outcome, now),
        }
        replies.extend(self.act(session, now));
        replies
    }

    /// The guest's driver is ready. `age`: how long it has been.
    pub(crate) fn connect(&mut self, session: &Session, now: Duration, age: Duration) {
        self.driver = Some(Driver::new(session.clone(), now.saturating_sub(age)));
    }

    /// The guest's driver is gone. All pages of the balloon belong to the guest: another kernel may
    /// use them by now, and a host that gave them back later would break it.
    pub(crate) fn disconnect(&mut self) {
        self.driver = None;
        self.balloon.clear();
        self.policy.forget_guest();
    }

    /// The machine was reset: the guest has the memory that it booted with.
    pub(crate) fn reset(&mut self) {
        self.disconnect();
        self.added = 0;
        self.spare = None;
    }

    fn report(&mut self, pressure: Pressure, session: &mut Session, now: Duration) {
        self.counters.reports += 1;
        if session.request().is_none() {
            let guest = self.guest(session, now);
            self.policy.report(pressure, &self.bounds, &guest);
        }
        let Some(driver) = &mut self.driver else { return };
        driver.last_report = Some(now);
        if session.request().is_some() && now.saturating_sub(driver.asked_at) > ANSWER_TIMEOUT {
            self.counters.timeouts += 1;
            session.forget_request();
        }
    }

    /// Takes pages that the guest gives, and returns them to the host. `shared`: pages of GPADLs.
    fn balloon(&mut self, ranges: &[PageRange], is_last: bool, shared: &[Range<u64>]) {
        let absent = self.host.window();
        let mut pages = 0;
        for range in ranges {
            match self.balloon.give(*range, absent) {
                Ok(()) => {
                    pages += range.pages;
                    self.give_to_host(*range, shared);
                }
                Err(cause) => {
                    self.counters.ranges_refused += 1;
                    self.log.log(|left_out| {
                        warn!(%cause, left_out, "the balloon ignores pages of the guest");
                    });
                }
            }
        }
        self.counters.pages_ballooned += pages;
        self.policy.gave(pages);
        let Some(driver) = &mut self.driver else { return };
        driver.came += pages;
        if is_last && driver.came < driver.asked {
            self.policy.fell_short();
        }
    }

    /// Returns the pages of the balloon near `range` to the host, where the host can have them.
    fn give_to_host(&mut self, range: PageRange, shared: &[Range<u64>]) {
        for whole in self.balloon.whole_units(range) {
            let (free, kept) = without(whole, shared, self.host.unit());
            self.counters.pages_shared += kept;
            for range in free {
                match self.host.discard(range) {
                    Ok(()) => {
                        self.balloon.set_returned(range);
                        self.counters.pages_returned += range.pages;
                    }
                    Err(error) => self.host_error(&error),
                }
            }
        }
    }

    /// Returns the pages of a guest's hint that the host can have, and counts all. The caller
    /// discards them without the lock, as a hint may name all RAM.
    pub(crate) fn hint(&mut self, ranges: &[PageRange], shared: &[Range<u64>]) -> Vec<PageRange> {
        let (unit, absent) = (self.host.unit(), self.host.window());
        let mut all = Vec::new();
        for range in ranges {
            if !self.balloon.is_ram(*range, absent) {
                self.counters.ranges_refused += 1;
                continue;
            }
            self.counters.pages_hinted += range.pages;
            let first = range.first.next_multiple_of(unit);
            let pages = (range.end() / unit * unit).saturating_sub(first);
            let (free, kept) = without(PageRange::new(first, pages), shared, unit);
            self.counters.pages_shared += kept;
            all.extend(free);
        }
        all
    }

    /// Notes what became of a hint's pages.
    pub(crate) fn hinted(&mut self, discarded: u64, error: Option<&io::Error>) {
        self.counters.pages_returned += discarded;
        if let Some(error) = error {
            self.host_error(error);
        }
    }

    pub(crate) fn host(&self) -> Arc<dyn HostMemory> {
        Arc::clone(&self.host)
    }

    fn hot_added(&mut self, range: PageRange, outcome: HotAddOutcome, now: Duration) {
        if let HotAddOutcome::Added(pages) = outcome {
            self.added += u64::from(pages);
        }
        let Some(driver) = &mut self.driver else { return };
        match outcome {
            HotAddOutcome::Added(pages) if u64::from(pages) == range.pages => {}
            HotAddOutcome::Failed => {
                driver.hot_add_after = now + HOT_ADD_RETRY;
                self.spare = Some(range);
            }
            // Part of it, or nothing for good: the guest has reached a limit of its addresses.
            HotAddOutcome::Added(_) | HotAddOutcome::Refused => driver.hot_add_refused = true,
        }
    }

    /// Returns the messages of the next request; none if there is nothing to request.
    pub(crate) fn act(&mut self, session: &mut Session, now: Duration) -> Vec<Vec<u8>> {
        let messages = self.next_request(session, now);
        if let Some(driver) = &mut self.driver {
            if !messages.is_empty() {
                self.counters.requests += 1;
                driver.asked_at = now;
            }
            driver.session.clone_from(session);
        }
        messages
    }

    fn next_request(&mut self, session: &mut Session, now: Duration) -> Vec<Vec<u8>> {
        let Some(driver) = self.driver.as_mut().filter(|_| session.may_request()) else {
            return Vec::new();
        };
        let age = now.saturating_sub(driver.since);
        let guest = self.guest(session, now);
        match self.policy.step(&self.bounds, &guest, age) {
            Step::Nothing => Vec::new(),
            Step::Balloon(pages) => {
                let message = session.balloon(u32::try_from(pages).unwrap_or(u32::MAX));
                if let Some(driver) = &mut self.driver {
                    (driver.asked, driver.came) = (pages, 0);
                }
                message.into_iter().collect()
            }
            Step::Unballoon(pages) => {
                let ranges = self.take(pages);
                session.unballoon(&ranges)
            }
            Step::HotAdd(pages) => {
                let alignment = session.capabilities().alignment_pages();
                match self.plug(pages, alignment) {
                    Ok(range) => session.hot_add(range).into_iter().collect(),
                    Err(error) => {
                        self.host_error(&error);
                        if let Some(driver) = &mut self.driver {
                            driver.hot_add_after = now + HOT_ADD_RETRY;
                        }
                        Vec::new()
                    }
                }
            }
        }
    }

    /// Takes up to `pages` pages from the balloon, for the guest.
    fn take(&mut self, pages: u64) -> Vec<PageRange> {
        let mut taken = Vec::new();
        for range in self.balloon.choose(pages, MAX_UNBALLOON_RANGES) {
            let units = self.balloon.returned_units(range);
            let reserved = units.into_iter().try_for_each(|unit| self.host.reserve(unit));
            if let Err(error) = reserved {
                // The host's hugepages are used by others: the guest gets less.
                self.host_error(&error);
                self.policy.fell_short();
                break;
            }
            self.balloon.take(range);
            self.counters.pages_unballooned += range.pages;
            taken.push(range);
        }
        taken
    }

    /// Returns memory for the guest to add: `pages` pages, or those that it could not add before.
    fn plug(&mut self, pages: u64, alignment: u64) -> io::Result<PageRange> {
        if let Some(spare) = self.spare.take() {
            return Ok(spare);
        }
        if !self.host.window().first.is_multiple_of(alignment) {
            return Err(io::Error::other("the guest needs another alignment of added memory"));
        }
        self.host.plug(pages)
    }

    fn host_error(&mut self, error: &io::Error) {
        self.counters.host_errors += 1;
        self.log.log(|left_out| {
            warn!(%error, left_out, "the host's kernel does not free or allocate guest memory");
        });
    }

    pub(crate) fn refuse(&mut self, cause: &dyn std::fmt::Display) {
        self.counters.messages_refused += 1;
        self.log.log(|left_out| warn!(%cause, left_out, "dynamic memory ignores the guest"));
    }

    /// Returns what the policy must know.
    fn guest(&self, session: &Session, now: Duration) -> Guest {
        let capabilities = session.capabilities();
        let may_add = self.driver.as_ref().is_some_and(|driver| {
            capabilities.hot_add && !driver.hot_add_refused && now >= driver.hot_add_after
        });
        let alignment = capabilities.alignment_pages();
        let spare = self.spare.map_or(0, |range| range.pages);
        Guest {
            present: self.bounds.start + self.added,
            ballooned: self.balloon.pages(),
            hot_add_alignment: may_add.then_some(alignment),
            window: self.host.window().pages + spare,
            has_balloon: capabilities.balloon,
        }
    }

    /// Sets the size that a user wants, in bytes. `None`: the demand decides.
    pub(crate) fn set_wanted(&mut self, bytes: Option<u64>) -> Result<(), SetError> {
        let Bounds { min, max, .. } = self.bounds;
        let pages = bytes.map(|bytes| bytes / PAGE);
        if pages.is_some_and(|pages| pages < min || pages > max) {
            return Err(SetError { min: min * PAGE, max: max * PAGE });
        }
        self.policy.set_wanted(pages);
        Ok(())
    }

    pub(crate) fn status(&self, now: Duration) -> Status {
        let unknown = Session::new(0);
        let session = self.driver.as_ref().map_or(&unknown, |driver| &driver.session);
        let guest = self.guest(session, now);
        let bytes = |pages: u64| pages * PAGE;
        let request = session.request().map(|request| match request {
            Request::Balloon => "balloon",
            Request::Unballoon => "unballoon",
            Request::HotAdd(_) => "hot add",
        });
        let last_report = self.driver.as_ref().and_then(|driver| driver.last_report);
        Status {
            version: self.driver.as_ref().and_then(|driver| driver.session.version()),
            bounds: self.bounds,
            sizes: Sizes {
                assigned: bytes(guest.present.saturating_sub(guest.ballooned)),
                added: bytes(self.added),
                ballooned: bytes(guest.ballooned),
                returned: bytes(self.balloon.returned()),
                resident: self.host.resident_bytes(),
                demand: self.policy.demand().map(bytes),
                available: self
                    .policy
                    .pressure()
                    .map(|one| bytes(one.available.min(guest.present))),
                target: self.policy.target(&self.bounds).map(bytes),
                wanted: self.policy.wanted().map(bytes),
            },
            request,
            report_age: last_report.map(|then| now.saturating_sub(then)),
            counters: self.counters,
        }
    }

    /// Restores the balloon of a saved machine: its pages stay out of the host's memory.
    pub(crate) fn restore_balloon(&mut self, ranges: &[PageRange]) -> Result<(), String> {
        let absent = self.host.window();
        for range in ranges {
            self.balloon.give(*range, absent).map_err(|error| error.to_string())?;
        }
        for range in ranges {
            self.give_to_host(*range, &[]);
        }
        Ok(())
    }

    /// Plugs memory that the saved guest had added.
    pub(crate) fn restore_added(&mut self, plugged: u64, added: u64) -> Result<(), String> {
        let before = self.plugged();
        if plugged < before || added > plugged {
            return Err("it has added memory that the machine cannot have".to_owned());
        }
        if plugged > before {
            self.host.plug(plugged - before).map_err(|error| {
                format!("{} bytes cannot be added again: {error}", (plugged - before) * PAGE)
            })?;
        }
        self.added = added;
        Ok(())
    }

    /// Returns the pages of the window that are plugged, from its first on.
    pub(crate) fn plugged(&self) -> u64 {
        let window = self.host.window();
        let regions = self.host.regions();
        let region = regions.iter().find(|one| one.end() == window.end() && window.end() > 0);
        match region {
            Some(region) if window.pages < region.pages => region.pages - window.pages,
            _ => 0,
        }
    }
}

/// Returns the units of `range`, which consists of whole ones, that no page of `shared` touches,
/// with neighbours joined; and the number of the other pages. `shared` is sorted.
fn without(range: PageRange, shared: &[Range<u64>], unit: u64) -> (Vec<PageRange>, u64) {
    let mut free = Vec::new();
    let (mut first, end) = (range.first, range.end());
    let mut kept = 0;
    let begin = shared.partition_point(|one| one.end <= first);
    for one in shared.iter().skip(begin).take_while(|one| one.start < end) {
        let start = (one.start / unit * unit).max(first);
        let after = one.end.next_multiple_of(unit).min(end);
        if first < start {
            free.push(PageRange::new(first, start - first));
        }
        kept += after.saturating_sub(start);
        first = first.max(after);
    }
    if first < end {
        free.push(PageRange::new(first, end - first));
    }
    (free, kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_without_leaves_out_each_unit_with_a_shared_page() {
        let shared = [5..7, 20..21, 40..600, 1000..1001];
        let ranges = |first, pages, unit| {
            let (free, kept) = without(PageRange::new(first, pages), &shared, unit);
            (free.into_iter().map(<[u64; 2]>::from).collect::<Vec<_>>(), kept)
        };
        assert_eq!(ranges(0, 30, 1), (vec![[0, 5], [7, 13], [21, 9]], 3));
        assert_eq!(ranges(5, 2, 1), (vec![], 2));
        assert_eq!(ranges(6, 1, 1), (vec![], 1));
        assert_eq!(ranges(7, 13, 1), (vec![[7, 13]], 0));
        assert_eq!(ranges(2000, 10, 1), (vec![[2000, 10]], 0));
        assert_eq!(ranges(0, 2048, 512), (vec![[1024, 1024]], 1024));
        assert_eq!(ranges(0, 64, 16), (vec![], 64));
        assert_eq!(ranges(600, 1000, 1), (vec![[600, 400], [1001, 599]], 1));
    }
}
