//! All GPADLs of a VM: page lists being received, accepted GPADLs, GPADLs being torn down, and
//! their quotas.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmbus_gpadl::{
    Access, Gpadl, GpadlKey, GpadlView, GuestBuffer, GuestRam, MapError, RangeAssembler, ReadWrite,
    ReleaseSink, Teardown,
};
use vmbus_protocol::limits::{
    MAX_GPADL_PAGES, MAX_GPADL_PAGES_PER_CHANNEL, MAX_GPADL_PAGES_PER_VM, MAX_GPADLS_IN_PROGRESS,
    MAX_GPADLS_IN_PROGRESS_PER_CHANNEL, MAX_GPADLS_PER_CHANNEL, MAX_GPADLS_PER_VM,
};
use vmbus_protocol::offer::status;

use crate::saved::{RestoreError, SavedGpadl, SavedGpadlState};

/// The accepted GPADLs, by relid and id. The core adds and removes them; channels map them from any
/// thread.
#[derive(Debug, Default)]
pub struct GpadlTable {
    accepted: Mutex<Accepted>,
}

type Accepted = BTreeMap<(u32, u32), AcceptedGpadl>;

impl GpadlTable {
    /// Maps GPADL `id` of channel `relid` to read and write.
    ///
    /// # Errors
    /// As [`GpadlTable::map_for`].
    pub fn map(&self, relid: u32, id: u32) -> Result<GpadlView, MapError> {
        self.map_for(relid, id, ReadWrite)
    }

    /// Maps GPADL `id` of channel `relid` for `access`.
    ///
    /// # Errors
    /// [`MapError`]: unknown on this channel, mapped already, being torn down, or read-only and
    /// asked for writing.
    pub fn map_for<A: Access>(&self, relid: u32, id: u32, access: A) -> Result<A::View, MapError> {
        access.map(&self.get(relid, id)?)
    }

    /// Marks GPADL `id` of channel `relid` as read-only: it is not mapped for writing from now on.
    ///
    /// # Errors
    /// [`MapError::Unknown`].
    pub fn mark_read_only(&self, relid: u32, id: u32) -> Result<(), MapError> {
        self.get(relid, id)?.mark_read_only();
        Ok(())
    }

    fn get(&self, relid: u32, id: u32) -> Result<Gpadl, MapError> {
        let accepted = self.lock();
        accepted.get(&(relid, id)).map(|entry| entry.gpadl.clone()).ok_or(MapError::Unknown(id))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Accepted> {
        // The map is whole between any two statements that hold the lock.
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outcome of a piece of range data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Bodies are to come.
    More,
    /// Complete and valid; the channel's relid.
    Accepted(u32),
    /// Refused and forgotten.
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
    pub(super) table: Arc<GpadlTable>,
    /// By handle alone: bodies carry no relid.
    pub(super) receiving: BTreeMap<u32, PageList>,
    usage: BTreeMap<u32, Usage>,
    pages: usize,
    next_serial: u64,
}

/// A page list that is being received.
#[derive(Debug)]
pub(super) struct PageList {
    pub(super) relid: u32,
    pub(super) assembler: RangeAssembler,
    /// Pages charged, as the header declared.
    pub(super) charged: usize,
}

#[derive(Debug)]
pub(super) struct AcceptedGpadl {
    pub(super) gpadl: Gpadl,
    /// Pages charged.
    pub(super) charged: usize,
    pub(super) tearing_down: TearingDown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TearingDown {
    No,
    /// The guest waits for TORNDOWN.
    Answered,
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
            table: Arc::default(),
            receiving: BTreeMap::new(),
            usage: BTreeMap::new(),
            pages: 0,
            next_serial: 0,
        }
    }

    /// Returns a table without GPADLs, over the same memory.
    pub(super) fn fresh(&self) -> Self {
        Self::new(self.ram.clone(), Arc::clone(&self.sink))
    }

    pub(super) fn table(&self) -> Arc<GpadlTable> {
        Arc::clone(&self.table)
    }

    /// Takes a header and its range data.
    pub(super) fn begin(
        &mut self,
        relid: u32,
        id: u32,
        ranges: u16,
        bytes: u16,
        data: &[u8],
    ) -> Progress {
        let refused = |status| Progress::Refused { relid, status };
        if self.exists(relid, id) {
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
                self.receiving.insert(id, PageList { relid, assembler, charged: declared });
                Progress::More
            }
            Ok(true) if assembler.finish().is_some() => self.accept(relid, id, buffer, declared),
            Ok(true) | Err(_) => self.refuse(relid, declared),
        }
    }

    /// Takes a body.
    #[inline]
    pub(super) fn continue_with(&mut self, id: u32, data: &[u8]) -> Progress {
        let Some(list) = self.receiving.get_mut(&id) else { return Progress::Unknown };
        let pushed = list.assembler.push(data);
        match pushed {
            Ok(false) => Progress::More,
            Ok(true) | Err(_) => match (self.receiving.remove(&id), pushed) {
                (Some(list), Ok(_)) => self.finish(id, list),
                (Some(list), Err(_)) => self.refuse(list.relid, list.charged),
                (None, _) => Progress::Unknown,
            },
        }
    }

    /// Begins a teardown that the guest asked for.
    pub(super) fn teardown(&mut self, relid: u32, id: u32) -> TeardownOf {
        let mut accepted = self.table.lock();
        let Some(entry) = accepted.get_mut(&(relid, id)) else { return TeardownOf::Unknown };
        if entry.tearing_down == TearingDown::No && entry.gpadl.teardown() == Teardown::Done {
            drop(accepted);
            self.remove(relid, id);
            return TeardownOf::Done;
        }
        entry.tearing_down = TearingDown::Answered;
        TeardownOf::Waits
    }

    /// Handles the release of the last view of a GPADL that is being torn down. Returns whether the
    /// guest waits for TORNDOWN.
    pub(super) fn released(&mut self, key: GpadlKey) -> bool {
        let tearing_down = match self.table.lock().get(&(key.relid, key.id)) {
            Some(entry) if entry.gpadl.key() == key => entry.tearing_down,
            Some(_) | None => TearingDown::No,
        };
        if tearing_down != TearingDown::No {
            self.remove(key.relid, key.id);
        }
        tearing_down == TearingDown::Answered
    }

    /// Maps a GPADL that a ring pair can lie in: accepted, one range, whole pages.
    pub(super) fn map_ring(&self, relid: u32, id: u32) -> Option<GpadlView> {
        let gpadl = self.table.get(relid, id).ok()?;
        if !gpadl.buffer().is_whole_pages() {
            return None;
        }
        gpadl.map().ok()
    }

    /// Forgets the page lists of a channel that are still being received, and returns their
    /// handles.
    pub(super) fn abandon_unfinished(&mut self, relid: u32) -> Vec<u32> {
        let ids: Vec<u32> = self
            .receiving
            .iter()
            .filter(|(_, list)| list.relid == relid)
            .map(|(&id, _)| id)
            .collect();
        for id in &ids {
            if let Some(list) = self.receiving.remove(id) {
                self.refund(relid, list.charged);
            }
        }
        ids
    }

    /// Begins to forget all accepted GPADLs of a channel. Those in use stay until they are
    /// released, and are answered then if the guest asked.
    pub(super) fn forget_channel(&mut self, relid: u32) {
        let of_channel = (relid, 0)..=(relid, u32::MAX);
        let places: Vec<_> = self.table.lock().range(of_channel).map(|(&place, _)| place).collect();
        for place in places {
            self.forget(place);
        }
    }

    /// Begins to forget all GPADLs, without answers.
    pub(super) fn forget_all(&mut self) {
        for (_, list) in std::mem::take(&mut self.receiving) {
            self.refund(list.relid, list.charged);
        }
        let mut places = Vec::new();
        for (&place, entry) in self.table.lock().iter_mut() {
            places.push(place);
            if entry.tearing_down == TearingDown::Answered {
                // The guest that waited for the answer has left.
                entry.tearing_down = TearingDown::Silent;
            }
        }
        for place in places {
            self.forget(place);
        }
    }

    /// Returns whether the channel has any GPADL at all.
    pub(super) fn has_any(&self, relid: u32) -> bool {
        self.usage.contains_key(&relid)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.lock().is_empty() && self.receiving.is_empty()
    }

    /// Restores a saved GPADL. A teardown in progress must begin again: see
    /// [`Gpadls::end_teardowns`].
    pub(super) fn restore(&mut self, saved: &SavedGpadl) -> Result<(), RestoreError> {
        let (relid, id) = (saved.relid, saved.id);
        let bad = |why| Err(RestoreError::Gpadl { relid, id, why });
        if self.exists(relid, id) {
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
        let mut list = PageList { relid, assembler, charged };
        let data: Vec<u8> = saved.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        match (list.assembler.push(&data), saved.state) {
            (Ok(false), SavedGpadlState::Arriving { .. }) => {
                self.receiving.insert(id, list);
            }
            (Ok(true), SavedGpadlState::Accepted { read_only, going, answer, .. }) => {
                if list.assembler.buffer().pages() > charged {
                    return bad("it is charged less than it has");
                }
                self.finish(id, list);
                let mut accepted = self.table.lock();
                let Some(entry) = accepted.get_mut(&(relid, id)) else {
                    return bad("it is nowhere");
                };
                if read_only {
                    entry.gpadl.mark_read_only();
                }
                entry.tearing_down = match (going, answer) {
                    (false, _) => TearingDown::No,
                    (true, false) => TearingDown::Silent,
                    (true, true) => TearingDown::Answered,
                };
            }
            (Ok(_), _) => return bad("its list is as long as it should not be"),
            (Err(_), _) => return bad("its list is no list of pages of this memory"),
        }
        Ok(())
    }

    /// Begins the teardowns that had begun before the bus was saved, and returns those that the
    /// guest waits for now.
    pub(super) fn end_teardowns(&mut self) -> Vec<u32> {
        let mut done = Vec::new();
        for (&place, entry) in self.table.lock().iter() {
            if entry.tearing_down != TearingDown::No && entry.gpadl.teardown() == Teardown::Done {
                done.push((place, entry.tearing_down));
            }
        }
        for &((relid, id), _) in &done {
            self.remove(relid, id);
        }
        let answered =
            done.into_iter().filter(|(_, tearing_down)| *tearing_down == TearingDown::Answered);
        answered.map(|((_, id), _)| id).collect()
    }

    /// Returns the accepted GPADLs in the order of their relids and ids.
    pub(super) fn accepted(&self) -> Vec<Gpadl> {
        self.table.lock().values().map(|entry| entry.gpadl.clone()).collect()
    }

    pub(super) fn get(&self, relid: u32, id: u32) -> Option<Gpadl> {
        self.table.get(relid, id).ok()
    }

    /// Returns the number of page lists being received.
    pub(super) fn receiving(&self) -> usize {
        self.receiving.len()
    }

    /// Returns the GPADLs and pages charged to all channels together.
    pub(super) fn charges(&self) -> (usize, usize) {
        self.usage.values().fold((0, 0), |(gpadls, pages), usage| {
            (gpadls.saturating_add(usage.gpadls), pages.saturating_add(usage.pages))
        })
    }

    fn exists(&self, relid: u32, id: u32) -> bool {
        self.receiving.contains_key(&id) || self.table.lock().contains_key(&(relid, id))
    }

    fn forget(&mut self, (relid, id): (u32, u32)) {
        let mut accepted = self.table.lock();
        let Some(entry) = accepted.get_mut(&(relid, id)) else { return };
        if entry.tearing_down != TearingDown::No {
            return;
        }
        if entry.gpadl.teardown() == Teardown::Waits {
            entry.tearing_down = TearingDown::Silent;
            return;
        }
        drop(accepted);
        self.remove(relid, id);
    }

    fn finish(&mut self, id: u32, list: PageList) -> Progress {
        let PageList { relid, assembler, charged } = list;
        match assembler.finish() {
            Some(buffer) => self.accept(relid, id, buffer, charged),
            None => self.refuse(relid, charged),
        }
    }

    fn accept(&mut self, relid: u32, id: u32, buffer: GuestBuffer, charged: usize) -> Progress {
        let key = GpadlKey { relid, id, serial: self.next_serial };
        self.next_serial = self.next_serial.wrapping_add(1);
        let gpadl = Gpadl::new(key, buffer, Arc::clone(&self.sink));
        let entry = AcceptedGpadl { gpadl, charged, tearing_down: TearingDown::No };
        self.table.lock().insert((relid, id), entry);
        Progress::Accepted(relid)
    }

    fn refuse(&mut self, relid: u32, charged: usize) -> Progress {
        self.refund(relid, charged);
        Progress::Refused { relid, status: status::INVALID_PARAMETER }
    }

    fn remove(&mut self, relid: u32, id: u32) {
        // In its own statement: a GPADL that is dropped must not meet the lock.
        let removed = self.table.lock().remove(&(relid, id));
        if let Some(entry) = removed {
            self.refund(relid, entry.charged);
        }
    }

    /// Returns whether one more list may begin on this channel. There are few, so that they are
    /// counted here and not as they change.
    fn may_arrive(&self, relid: u32) -> bool {
        let of_channel = self.receiving.values().filter(|list| list.relid == relid).count();
        self.receiving.len() < MAX_GPADLS_IN_PROGRESS
            && of_channel < MAX_GPADLS_IN_PROGRESS_PER_CHANNEL
    }

    /// Takes the quota for one GPADL of `pages` pages. Returns false if there is not enough.
    fn charge(&mut self, relid: u32, pages: usize) -> bool {
        let usage = self.usage.get(&relid).copied().unwrap_or_default();
        let total = self.pages.saturating_add(pages);
        let of_channel = usage.pages.saturating_add(pages);
        let count = self.receiving.len().saturating_add(self.table.lock().len());
        if usage.gpadls >= MAX_GPADLS_PER_CHANNEL
            || count >= MAX_GPADLS_PER_VM
            || of_channel > MAX_GPADL_PAGES_PER_CHANNEL
            || total > MAX_GPADL_PAGES_PER_VM
        {
            return false;
        }
        self.pages = total;
        self.usage
            .insert(relid, Usage { gpadls: usage.gpadls.saturating_add(1), pages: of_channel });
        true
    }

    fn refund(&mut self, relid: u32, pages: usize) {
        self.pages = self.pages.saturating_sub(pages);
        if let Some(usage) = self.usage.get_mut(&relid) {
            usage.gpadls = usage.gpadls.saturating_sub(1);
            usage.pages = usage.pages.saturating_sub(pages);
            if usage.gpadls == 0 {
                self.usage.remove(&relid);
            }
        }
    }
}

impl std::fmt::Debug for Gpadls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpadls")
            .field("receiving", &self.receiving)
            .field("accepted", &self.table)
            .finish_non_exhaustive()
    }
}
