//! All GPADLs of a VM: page lists being received, accepted GPADLs, GPADLs being torn down, and
//! their quotas.

use std::collections::BTreeMap;
use std::sync::Arc;

use vmbus_gpadl::{
    Gpadl, GpadlKey, GpadlView, GuestBuffer, GuestRam, RangeAssembler, ReleaseSink, Teardown,
};
use vmbus_protocol::limits::{
    MAX_GPADL_PAGES, MAX_GPADL_PAGES_PER_CHANNEL, MAX_GPADL_PAGES_PER_VM, MAX_GPADLS_IN_PROGRESS,
    MAX_GPADLS_IN_PROGRESS_PER_CHANNEL, MAX_GPADLS_PER_CHANNEL, MAX_GPADLS_PER_VM,
};
use vmbus_protocol::offer::status;

use super::saved::{RestoreError, SavedGpadl, SavedGpadlState};

/// The outcome of a piece of range data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More bodies must follow.
    More,
    /// The list is complete and valid; contains the channel's relid.
    Accepted(u32),
    /// The list was refused and dropped.
    Refused { relid: u32, status: u32 },
    /// No page list of this handle is being received.
    Unknown,
}

/// The outcome of a teardown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TeardownOf {
    /// TORNDOWN must be sent now.
    Done,
    /// TORNDOWN will be sent later, once, or was requested before.
    Waits,
    /// No accepted GPADL of this channel.
    Unknown,
}

pub(super) struct Gpadls {
    ram: GuestRam,
    sink: Arc<dyn ReleaseSink>,
    /// Page lists being received, by handle alone, as bodies carry no relid.
    pub(super) arriving: BTreeMap<u32, Arriving>,
    pub(super) accepted: BTreeMap<(u32, u32), Accepted>,
    /// Usage by relid. An entry outlives its channel's last GPADL, so that a channel with one GPADL
    /// at a time does not allocate. There are few entries, as relids are the lowest free ones.
    usage: BTreeMap<u32, Usage>,
    pages: usize,
    next_serial: u64,
}

#[derive(Debug)]
pub(super) struct Arriving {
    pub(super) relid: u32,
    pub(super) assembler: RangeAssembler,
    /// Pages charged, as the header declared.
    pub(super) charged: usize,
}

#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) gpadl: Gpadl,
    /// Pages charged.
    pub(super) charged: usize,
    pub(super) going: Going,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Going {
    No,
    /// The guest waits for TORNDOWN.
    Answer,
    /// No answer is expected: the connection or the channel has ended.
    Silent,
}

/// The GPADLs of one channel.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    gpadls: usize,
    pages: usize,
}

impl Gpadls {
    pub(super) fn new(ram: GuestRam, sink: Arc<dyn ReleaseSink>) -> Self {
        Self {
            ram,
            sink,
            arriving: BTreeMap::new(),
            accepted: BTreeMap::new(),
            usage: BTreeMap::new(),
            pages: 0,
            next_serial: 0,
        }
    }

    /// Returns a table without GPADLs, over the same memory.
    pub(super) fn fresh(&self) -> Self {
        Self::new(self.ram.clone(), Arc::clone(&self.sink))
    }

    /// Handles a header and its range data.
    pub(super) fn begin(
        &mut self,
        relid: u32,
        id: u32,
        ranges: u16,
        bytes: u16,
        data: &[u8],
    ) -> Progress {
        let refused = |status| Progress::Refused { relid, status };
        if self.arriving.contains_key(&id) || self.accepted.contains_key(&(relid, id)) {
            return refused(status::INVALID_PARAMETER);
        }
        let mut buffer = GuestBuffer::new(self.ram.clone());
        let begun = RangeAssembler::begin(&mut buffer, u32::from(ranges), usize::from(bytes));
        let Ok(mut assembler) = begun else { return refused(status::INVALID_PARAMETER) };
        // One word of each range is not a page.
        let declared = (usize::from(bytes) / 8).saturating_sub(usize::from(ranges));
        if !self.may_arrive(relid) || !self.charge(relid, declared) {
            return refused(status::QUOTA_EXCEEDED);
        }
        match assembler.push(data) {
            Ok(false) => {
                let assembler = assembler.into_owned();
                self.arriving.insert(id, Arriving { relid, assembler, charged: declared });
                Progress::More
            }
            Ok(true) if assembler.finish().is_some() => self.accept(relid, id, buffer, declared),
            Ok(true) | Err(_) => self.refuse(relid, declared),
        }
    }

    /// Handles a body.
    #[inline]
    pub(super) fn continue_with(&mut self, id: u32, data: &[u8]) -> Progress {
        let Some(arriving) = self.arriving.get_mut(&id) else { return Progress::Unknown };
        let pushed = arriving.assembler.push(data);
        match pushed {
            Ok(false) => Progress::More,
            Ok(true) | Err(_) => match (self.arriving.remove(&id), pushed) {
                (Some(arriving), Ok(_)) => self.finish(id, arriving),
                (Some(arriving), Err(_)) => self.refuse(arriving.relid, arriving.charged),
                (None, _) => Progress::Unknown,
            },
        }
    }

    /// Begins a teardown that the guest asked for.
    pub(super) fn teardown(&mut self, relid: u32, id: u32) -> TeardownOf {
        let Some(entry) = self.accepted.get_mut(&(relid, id)) else { return TeardownOf::Unknown };
        match entry.going {
            Going::No => {}
            Going::Answer => return TeardownOf::Waits,
            Going::Silent => {
                entry.going = Going::Answer;
                return TeardownOf::Waits;
            }
        }
        match entry.gpadl.teardown() {
            Teardown::Done => {
                self.remove(relid, id);
                TeardownOf::Done
            }
            Teardown::Waits => {
                entry.going = Going::Answer;
                TeardownOf::Waits
            }
        }
    }

    /// Handles the release of the last view of a GPADL that is being torn down. Returns whether the
    /// guest waits for TORNDOWN.
    pub(super) fn released(&mut self, key: GpadlKey) -> bool {
        let place = (key.relid, key.id);
        match self.accepted.get(&place) {
            Some(entry) if entry.gpadl.key() == key && entry.going != Going::No => {
                let answer = entry.going == Going::Answer;
                self.remove(key.relid, key.id);
                answer
            }
            Some(_) | None => false,
        }
    }

    /// Maps a GPADL that a ring pair can lie in: accepted, one range, whole pages.
    pub(super) fn map_ring(&self, relid: u32, id: u32) -> Option<GpadlView> {
        let entry = self.accepted.get(&(relid, id))?;
        if !entry.gpadl.buffer().is_whole_pages() {
            return None;
        }
        entry.gpadl.map().ok()
    }

    /// Drops the page lists of a channel that are being received, and returns their handles.
    pub(super) fn abandon_unfinished(&mut self, relid: u32) -> Vec<u32> {
        let ids: Vec<u32> = self
            .arriving
            .iter()
            .filter(|(_, arriving)| arriving.relid == relid)
            .map(|(&id, _)| id)
            .collect();
        for id in &ids {
            if let Some(arriving) = self.arriving.remove(id) {
                self.refund(relid, arriving.charged);
            }
        }
        ids
    }

    /// Begins the teardown of all accepted GPADLs of a channel. GPADLs in use stay until they are
    /// released, and are answered then if the guest asked.
    pub(super) fn forget_channel(&mut self, relid: u32) {
        let ids: Vec<u32> =
            self.accepted.range((relid, 0)..=(relid, u32::MAX)).map(|(&(_, id), _)| id).collect();
        for id in ids {
            self.forget(relid, id);
        }
    }

    /// Begins the teardown of all GPADLs, without answers.
    pub(super) fn forget_all(&mut self) {
        for (_, arriving) in std::mem::take(&mut self.arriving) {
            self.refund(arriving.relid, arriving.charged);
        }
        let places: Vec<(u32, u32)> = self.accepted.keys().copied().collect();
        for (relid, id) in places {
            if let Some(entry) =
                self.accepted.get_mut(&(relid, id)).filter(|entry| entry.going == Going::Answer)
            {
                // The guest that expected the answer has left.
                entry.going = Going::Silent;
            }
            self.forget(relid, id);
        }
    }

    /// Returns whether the channel has any GPADL at all.
    pub(super) fn has_any(&self, relid: u32) -> bool {
        self.usage.get(&relid).is_some_and(|usage| usage.gpadls > 0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.accepted.is_empty() && self.arriving.is_empty()
    }

    /// Restores a saved GPADL. A teardown in progress must begin again: see
    /// [`Gpadls::end_teardowns`].
    pub(super) fn restore(&mut self, saved: &SavedGpadl) -> Result<(), RestoreError> {
        let (relid, id) = (saved.relid, saved.id);
        let bad = |why| Err(RestoreError::Gpadl { relid, id, why });
        if self.arriving.contains_key(&id) || self.accepted.contains_key(&(relid, id)) {
            return bad("it is there twice");
        }
        let (bytes, charged) = match saved.state {
            SavedGpadlState::Arriving { bytes } => (
                usize::from(bytes),
                (usize::from(bytes) / 8).saturating_sub(usize::from(saved.ranges)),
            ),
            SavedGpadlState::Accepted { charged, .. } => {
                (saved.words.len().saturating_mul(8), charged)
            }
        };
        let arrives = matches!(saved.state, SavedGpadlState::Arriving { .. });
        if charged > MAX_GPADL_PAGES
            || (arrives && !self.may_arrive(relid))
            || !self.charge(relid, charged)
        {
            return bad("it is over the quota");
        }
        let buffer = GuestBuffer::new(self.ram.clone());
        let Ok(assembler) = RangeAssembler::begin(buffer, u32::from(saved.ranges), bytes) else {
            return bad("its numbers disagree");
        };
        let mut arriving = Arriving { relid, assembler, charged };
        let data: Vec<u8> = saved.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        match (arriving.assembler.push(&data), saved.state) {
            (Ok(false), SavedGpadlState::Arriving { .. }) => {
                self.arriving.insert(id, arriving);
            }
            (Ok(true), SavedGpadlState::Accepted { read_only, going, answer, .. }) => {
                if arriving.assembler.buffer().pages() > charged {
                    return bad("it is charged less than it has");
                }
                self.finish(id, arriving);
                let Some(entry) = self.accepted.get_mut(&(relid, id)) else {
                    return bad("it is nowhere");
                };
                if read_only {
                    entry.gpadl.mark_read_only();
                }
                entry.going = match (going, answer) {
                    (false, _) => Going::No,
                    (true, false) => Going::Silent,
                    (true, true) => Going::Answer,
                };
            }
            (Ok(_), _) => return bad("its list is as long as it should not be"),
            (Err(_), _) => return bad("its list is no list of pages of this memory"),
        }
        Ok(())
    }

    /// Restarts the teardowns that were in progress when the bus was saved. Returns the GPADLs for
    /// which TORNDOWN must be sent now.
    pub(super) fn end_teardowns(&mut self) -> Vec<u32> {
        let going: Vec<(u32, u32)> = self
            .accepted
            .iter()
            .filter(|(_, entry)| {
                entry.going != Going::No && entry.gpadl.teardown() == Teardown::Done
            })
            .map(|(&place, _)| place)
            .collect();
        let mut told = Vec::new();
        for (relid, id) in going {
            if self.accepted.get(&(relid, id)).is_some_and(|entry| entry.going == Going::Answer) {
                told.push(id);
            }
            self.remove(relid, id);
        }
        told
    }

    /// Returns the accepted GPADLs with their state, for reports.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Gpadl> {
        self.accepted.values().map(|entry| &entry.gpadl)
    }

    pub(super) fn get(&self, relid: u32, id: u32) -> Option<&Gpadl> {
        self.accepted.get(&(relid, id)).map(|entry| &entry.gpadl)
    }

    /// Returns the number of page lists being received.
    pub(super) fn arriving(&self) -> usize {
        self.arriving.len()
    }

    /// Returns the GPADLs and pages charged to all channels together.
    pub(super) fn charges(&self) -> (usize, usize) {
        self.usage.values().fold((0, 0), |(gpadls, pages), usage| {
            (gpadls.saturating_add(usage.gpadls), pages.saturating_add(usage.pages))
        })
    }

    fn forget(&mut self, relid: u32, id: u32) {
        let Some(entry) = self.accepted.get_mut(&(relid, id)) else { return };
        if entry.going != Going::No {
            return;
        }
        match entry.gpadl.teardown() {
            Teardown::Done => self.remove(relid, id),
            Teardown::Waits => entry.going = Going::Silent,
        }
    }

    fn finish(&mut self, id: u32, arriving: Arriving) -> Progress {
        let Arriving { relid, assembler, charged } = arriving;
        match assembler.finish() {
            Some(buffer) => self.accept(relid, id, buffer, charged),
            None => self.refuse(relid, charged),
        }
    }

    fn accept(&mut self, relid: u32, id: u32, buffer: GuestBuffer, charged: usize) -> Progress {
        let key = GpadlKey { relid, id, serial: self.next_serial };
        self.next_serial = self.next_serial.wrapping_add(1);
        let gpadl = Gpadl::new(key, buffer, Arc::clone(&self.sink));
        self.accepted.insert((relid, id), Accepted { gpadl, charged, going: Going::No });
        Progress::Accepted(relid)
    }

    fn refuse(&mut self, relid: u32, charged: usize) -> Progress {
        self.refund(relid, charged);
        Progress::Refused { relid, status: status::INVALID_PARAMETER }
    }

    fn remove(&mut self, relid: u32, id: u32) {
        if let Some(entry) = self.accepted.remove(&(relid, id)) {
            self.refund(relid, entry.charged);
        }
    }

    /// Returns true if one more list may begin on this channel. Lists are few, so they are counted
    /// here and not tracked.
    fn may_arrive(&self, relid: u32) -> bool {
        let of_channel = self.arriving.values().filter(|arriving| arriving.relid == relid).count();
        self.arriving.len() < MAX_GPADLS_IN_PROGRESS
            && of_channel < MAX_GPADLS_IN_PROGRESS_PER_CHANNEL
    }

    /// Charges one GPADL of `pages` pages to the quotas. Returns false if they do not suffice.
    fn charge(&mut self, relid: u32, pages: usize) -> bool {
        let count = self.arriving.len().saturating_add(self.accepted.len());
        let usage = self.usage.entry(relid).or_default();
        let total = self.pages.saturating_add(pages);
        let of_channel = usage.pages.saturating_add(pages);
        if usage.gpadls >= MAX_GPADLS_PER_CHANNEL
            || count >= MAX_GPADLS_PER_VM
            || of_channel > MAX_GPADL_PAGES_PER_CHANNEL
            || total > MAX_GPADL_PAGES_PER_VM
        {
            return false;
        }
        self.pages = total;
        *usage = Usage { gpadls: usage.gpadls.saturating_add(1), pages: of_channel };
        true
    }

    fn refund(&mut self, relid: u32, pages: usize) {
        self.pages = self.pages.saturating_sub(pages);
        if let Some(usage) = self.usage.get_mut(&relid) {
            usage.gpadls = usage.gpadls.saturating_sub(1);
            usage.pages = usage.pages.saturating_sub(pages);
        }
    }
}

impl std::fmt::Debug for Gpadls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpadls")
            .field("arriving", &self.arriving)
            .field("accepted", &self.accepted)
            .finish_non_exhaustive()
    }
}
