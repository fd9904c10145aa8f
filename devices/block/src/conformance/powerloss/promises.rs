//! The contents that a disk may have after a loss of power, derived from the requests that it
//! acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::contents::SECTOR;
use crate::conformance::one;
use crate::{Backend, Operation};

/// A time span in positions of the log: from the submission of a request to its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The position before the request was submitted.
    pub submitted: usize,
    /// The position when the request had completed.
    pub acknowledged: usize,
}

/// The values that each sector and the capacity had, and the time at which each is durable.
///
/// A forced value (FUA) is durable from its own acknowledgement on. Any value is durable from the
/// acknowledgement of a flush on that was submitted after the value was acknowledged. After a loss
/// of power a sector has its last durable value or any later value that was submitted.
#[derive(Clone, Debug)]
pub struct Promises {
    /// Stamps, as in [`content`].
    sectors: BTreeMap<u64, Vec<Version<u32>>>,
    capacities: Vec<Version<u64>>,
    flushes: Vec<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Version<T> {
    value: T,
    span: Span,
    forced: bool,
    /// Whether the value is optional: the disk may show it, but does not have to.
    optional: bool,
}

impl<T> Version<T> {
    const fn before(value: T) -> Self {
        Self { value, span: BEFORE, forced: true, optional: false }
    }
}

const BEFORE: Span = Span { submitted: 0, acknowledged: 0 };

impl Promises {
    /// Returns the promises of a disk of `capacity` bytes, all zero and durable.
    pub fn new(capacity: u64) -> Self {
        let capacities = vec![Version::before(capacity)];
        Self { sectors: BTreeMap::new(), capacities, flushes: Vec::new() }
    }

    /// Records that the disk has `stamp` in `count` sectors from `first` on, durably, before the
    /// first request.
    pub fn begin_with(&mut self, first: u64, count: u64, stamp: u32) {
        self.wrote(first, count, stamp, BEFORE, true);
    }

    /// Records a completed write, discard or zeroing of `count` sectors from `first` on. `stamp` 0:
    /// zeroes.
    pub fn wrote(&mut self, first: u64, count: u64, stamp: u32, span: Span, forced: bool) {
        self.push(first, count, Version { value: stamp, span, forced, optional: false });
    }

    /// Records a completed discard of `count` sectors from `first` on, on a disk that may keep
    /// their content.
    pub fn discarded(&mut self, first: u64, count: u64, span: Span) {
        self.push(first, count, Version { value: 0, span, forced: false, optional: true });
    }

    fn push(&mut self, first: u64, count: u64, version: Version<u32>) {
        for sector in first..first + count {
            let zero = || vec![Version::before(0)];
            self.sectors.entry(sector).or_insert_with(zero).push(version);
        }
    }

    /// Records a completed flush.
    pub fn flushed(&mut self, span: Span) {
        self.flushes.push(span);
    }

    /// Records another capacity, which is durable when it is acknowledged. Removed sectors are zero
    /// if the disk grows again.
    pub fn resized(&mut self, capacity: u64, span: Span) {
        self.capacities.push(Version { value: capacity, span, forced: true, optional: false });
        for (_, versions) in self.sectors.range_mut(capacity / SECTOR..) {
            versions.push(Version { value: 0, span, forced: false, optional: false });
        }
    }

    /// Returns whether a request ever wrote to `sector`.
    pub fn names(&self, sector: u64) -> bool {
        self.sectors.contains_key(&sector)
    }

    /// Returns the stamps that `sector` may have when power is lost at `position`.
    pub fn allowed(&self, sector: u64, position: usize) -> Vec<u32> {
        self.sectors
            .get(&sector)
            .map_or(vec![0], |versions| self.since_durable(versions, position).collect())
    }

    /// Returns the last durable value and all later ones.
    fn since_durable<'a, T: Copy>(
        &self,
        versions: &'a [Version<T>],
        position: usize,
    ) -> impl Iterator<Item = T> + use<'a, T> {
        let is_durable = |version: &Version<T>| {
            let Version { span, forced, optional, .. } = version;
            let flushed = |flush: &Span| {
                span.acknowledged <= flush.submitted && flush.acknowledged <= position
            };
            !optional
                && (*forced && span.acknowledged <= position || self.flushes.iter().any(flushed))
        };
        let floor = versions.iter().rposition(is_durable).unwrap_or(0);
        let later =
            versions[floor..].iter().filter(move |version| version.span.submitted <= position);
        later.map(|version| version.value)
    }

    /// Compares all of `disk` with the contents that it may have after a power loss at `position`.
    ///
    /// # Errors
    /// The sector that differs, with its content.
    ///
    /// # Panics
    /// The disk cannot be read.
    pub fn judge(&self, disk: &Arc<dyn Backend>, position: usize) -> Result<(), String> {
        let capacity = disk.geometry().capacity;
        let capacities: Vec<u64> = self.since_durable(&self.capacities, position).collect();
        if !capacities.contains(&capacity) {
            return Err(format!("the disk has {capacity} bytes, and may have {capacities:?}"));
        }
        let mut queue = disk.queue().expect("a queue");
        let mut at = 0;
        while at < capacity {
            let extent =
                disk.extent(at).map_err(|error| format!("no extent at {at:#x}: {error}"))?;
            let length = extent.length.max(1).next_multiple_of(SECTOR).min(capacity - at);
            if extent.mapped {
                let length = length.min(1 << 20);
                let bytes = one(&mut *queue, Operation::Read, at, vec![0xA5; length as usize]);
                let bytes = bytes.map_err(|error| format!("a read at {at:#x} fails: {error}"))?;
                for (sector, bytes) in (at / SECTOR..).zip(bytes.chunks(SECTOR as usize)) {
                    self.judge_sector(sector, bytes, position)?;
                }
                at += length;
            } else {
                for (&sector, _) in self.sectors.range(at / SECTOR..(at + length) / SECTOR) {
                    self.judge_sector(sector, &[0; SECTOR as usize], position)?;
                }
                at += length;
            }
        }
        Ok(())
    }

    fn judge_sector(&self, sector: u64, bytes: &[u8], position: usize) -> Result<(), String> {
        let found = match stamp_of(sector, bytes) {
            Some(0) if !self.sectors.contains_key(&sector) => return Ok(()),
            found => found,
        };
        let versions = self.sectors.get(&sector).map(Vec::as_slice).unwrap_or_default();
        if self.since_durable(versions, position).any(|stamp| found == Some(stamp)) {
            return Ok(());
        }
        let allowed = self.allowed(sector, position);
        let word = bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let (stamp, of) = (word >> 32, word & 0xFFFF_FFFF);
        Err(format!(
            "sector {sector} may have the stamps {allowed:?}, but holds stamp {stamp} of sector \
            {of}"
        ))
    }
}

/// Returns the bytes of a sector: its number and the stamp of the write, repeated. Stamp 0 gives
/// zeroes.
pub fn content(sector: u64, stamp: u32) -> Vec<u8> {
    let word = if stamp == 0 { 0 } else { u64::from(stamp) << 32 | sector & 0xFFFF_FFFF };
    word.to_le_bytes().repeat(SECTOR as usize / 8)
}

/// Returns the stamp of a sector's content. `None`: [`content`] returns these bytes for no stamp.
fn stamp_of(sector: u64, bytes: &[u8]) -> Option<u32> {
    let (first, rest) = bytes.split_first_chunk::<8>()?;
    // The content repeats one word.
    if *rest != bytes[..rest.len()] {
        return None;
    }
    let word = u64::from_le_bytes(*first);
    let is_own = word == 0 || word & 0xFFFF_FFFF == sector & 0xFFFF_FFFF;
    is_own.then_some((word >> 32) as u32)
}
