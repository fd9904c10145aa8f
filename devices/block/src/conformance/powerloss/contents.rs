//! Files in memory: their sectors that are not zero, and the versions of sectors that may remain
//! after a power loss.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::change::Change;

/// The unit that storage writes as a whole or not at all.
pub(super) const SECTOR: u64 = 512;

/// The content of one sector. `None`: all zero.
pub(super) type Sector = Option<Arc<[u8; SECTOR as usize]>>;

/// The content of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    pub(super) length: u64,
    pub(super) sectors: BTreeMap<u64, Arc<[u8; SECTOR as usize]>>,
}

impl Contents {
    /// Reads all of `file`, which has `length` bytes.
    pub(super) fn read(file: &File, length: u64) -> io::Result<Self> {
        const STEP: u64 = 1 << 20;
        let mut contents = Self { length, sectors: BTreeMap::new() };
        let mut at = 0;
        let mut bytes = vec![0; STEP as usize];
        while at < length {
            let step = STEP.min(length - at);
            file.read_exact_at(&mut bytes[..step as usize], at)?;
            for (index, part) in (at / SECTOR..).zip(bytes[..step as usize].chunks(SECTOR as usize))
            {
                let mut sector = [0; SECTOR as usize];
                sector[..part.len()].copy_from_slice(part);
                contents.set(index, pack(sector));
            }
            at += step;
        }
        Ok(contents)
    }

    pub(super) fn get(&self, index: u64) -> Sector {
        self.sectors.get(&index).cloned()
    }

    pub(super) fn set(&mut self, index: u64, sector: Sector) {
        match sector {
            Some(sector) => drop(self.sectors.insert(index, sector)),
            None => drop(self.sectors.remove(&index)),
        }
    }

    /// Writes the content to the new file `file`, with holes for zero sectors.
    pub(super) fn write(&self, file: &File) -> io::Result<()> {
        file.set_len(self.length)?;
        let mut run: Vec<u8> = Vec::new();
        let mut begin = 0;
        let flush = |begin: u64, run: &mut Vec<u8>| {
            let left = self.length.saturating_sub(begin).min(run.len() as u64);
            let result = file.write_all_at(&run[..left as usize], begin);
            run.clear();
            result
        };
        for (&index, sector) in &self.sectors {
            let at = index * SECTOR;
            if begin + run.len() as u64 != at {
                flush(begin, &mut run)?;
                begin = at;
            }
            run.extend_from_slice(&sector[..]);
        }
        flush(begin, &mut run)
    }
}

fn pack(sector: [u8; SECTOR as usize]) -> Sector {
    (sector != [0; SECTOR as usize]).then(|| Arc::new(sector))
}

/// A file with changes that are not durable.
#[derive(Clone, Debug)]
pub(super) struct Tracked {
    /// The durable content.
    pub(super) durable: Contents,
    /// The later contents of each sector, oldest first, with the index of the change that made
    /// each.
    pub(super) versions: BTreeMap<u64, Vec<(usize, Sector)>>,
    /// The later lengths, oldest first, with the index of the change that made each.
    pub(super) lengths: Vec<(usize, u64)>,
}

impl Tracked {
    pub(super) fn new(durable: Contents) -> Self {
        Self { durable, versions: BTreeMap::new(), lengths: Vec::new() }
    }

    /// Returns a sector as the system shows it, after all changes.
    fn sector(&self, index: u64) -> Sector {
        match self.versions.get(&index).and_then(|versions| versions.last()) {
            Some((_, sector)) => sector.clone(),
            None => self.durable.get(index),
        }
    }

    fn length(&self) -> u64 {
        self.lengths.last().map_or(self.durable.length, |&(_, length)| length)
    }

    /// Records the issue of change number `op`. A sector that it does not change gets no new
    /// version.
    pub(super) fn change(&mut self, op: usize, change: &Change) {
        match change {
            Change::Sync => {}
            Change::Write { bytes, .. } if bytes.is_empty() => {}
            Change::Write { offset, bytes, durable } => {
                let end = offset + bytes.len() as u64;
                for index in offset / SECTOR..end.div_ceil(SECTOR) {
                    let begin = index * SECTOR;
                    let (from, to) = (begin.max(*offset), (begin + SECTOR).min(end));
                    self.edit(op, index, *durable, |sector| {
                        let part = &bytes[(from - offset) as usize..(to - offset) as usize];
                        sector[(from - begin) as usize..(to - begin) as usize]
                            .copy_from_slice(part);
                    });
                }
                if end > self.length() {
                    self.lengths.push((op, end));
                }
            }
            Change::Zero { offset, length } => {
                self.zero(op, *offset, offset.saturating_add(*length));
            }
            Change::Length(length) => {
                self.zero(op, *length, u64::MAX);
                if *length != self.length() {
                    self.lengths.push((op, *length));
                }
            }
        }
    }

    fn zero(&mut self, op: usize, begin: u64, end: u64) {
        let last = end.div_ceil(SECTOR);
        let range = begin / SECTOR..last;
        let mut known: Vec<u64> =
            self.durable.sectors.range(range.clone()).map(|(&index, _)| index).collect();
        known.extend(self.versions.range(range).map(|(&index, _)| index));
        known.sort_unstable();
        known.dedup();
        for index in known {
            let at = index * SECTOR;
            let (from, to) = (begin.max(at) - at, end.min(at + SECTOR) - at);
            self.edit(op, index, false, |sector| sector[from as usize..to as usize].fill(0));
        }
    }

    /// Adds a version of a sector. `always`: the version is added even if it equals the one before,
    /// because it becomes durable at another time.
    fn edit(
        &mut self,
        op: usize,
        index: u64,
        always: bool,
        change: impl FnOnce(&mut [u8; SECTOR as usize]),
    ) {
        let before = self.sector(index);
        let mut sector = before.as_deref().copied().unwrap_or([0; SECTOR as usize]);
        change(&mut sector);
        let after = pack(sector);
        if always || after != before {
            self.versions.entry(index).or_default().push((op, after));
        }
    }

    /// Makes the changes durable that `is_durable` selects. A later durable version of a sector
    /// contains the earlier ones.
    pub(super) fn settle(&mut self, is_durable: impl Fn(usize) -> bool) {
        let durable = &mut self.durable;
        self.versions.retain(|&index, versions| {
            if let Some(last) = versions.iter().rposition(|&(op, _)| is_durable(op)) {
                let (_, sector) = versions.drain(..=last).next_back().unwrap_or_default();
                durable.set(index, sector);
            }
            !versions.is_empty()
        });
        if let Some(last) = self.lengths.iter().rposition(|&(op, _)| is_durable(op)) {
            durable.length = self.lengths[last].1;
            self.lengths.drain(..=last);
        }
    }

    /// Makes the file durably at least `end` bytes long, because a durable write can be read back.
    pub(super) fn reach(&mut self, end: u64) {
        self.durable.length = self.durable.length.max(end);
    }

    /// Returns whether a part of a change that `which` selects is not durable.
    pub(super) fn is_pending(&self, which: impl Fn(usize) -> bool) -> bool {
        let mut versions = self.versions.values().flatten().map(|&(op, _)| op);
        versions.any(&which) || self.lengths.iter().any(|&(op, _)| which(op))
    }

    /// Returns the file after a loss of power. `keeps` returns whether this version of this sector
    /// reached the storage; it gets `None` for the length.
    pub(super) fn after(&self, keeps: impl Fn(usize, Option<u64>) -> bool) -> Contents {
        let mut contents = self.durable.clone();
        for (&index, versions) in &self.versions {
            if let Some((_, sector)) = versions.iter().rfind(|&&(op, _)| keeps(op, Some(index))) {
                contents.set(index, sector.clone());
            }
        }
        if let Some(&(_, length)) = self.lengths.iter().rfind(|&&(op, _)| keeps(op, None)) {
            contents.length = length;
        }
        contents
    }
}
