//! The tables that map the disk's clusters: the first level in memory, the second level in a
//! bounded cache.
//!
//! Entries are written through to the file, one aligned word each, so that dropping a table from
//! the cache loses nothing. Readers take a lock for reading. It is held for writing only while a
//! table is added or removed.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
};

use super::entry::{COPIED, Cluster, INVALID, table_offset};
use super::header::Header;
use super::layout::Layout;
use crate::file::ImageFile;

/// Bytes of second-level tables that are kept in memory: 256 GiB of a disk in clusters of 64 KiB.
pub(super) const MAX_CACHE: u64 = 32 << 20;
/// Tables that are always kept.
const MIN_TABLES: usize = 4;

/// Both levels of tables.
#[derive(Debug)]
pub(super) struct Tables {
    layout: Layout,
    state: RwLock<State>,
    /// Locked while a table is read from the file or written to it, so that no old content replaces
    /// newer content.
    disk: Mutex<Disk>,
}

#[derive(Debug)]
struct State {
    l1_offset: u64,
    l1: Vec<u64>,
    cached: HashMap<u64, Arc<Table>>,
    /// Indices of `cached`, in the order in which the clock's hand visits them.
    ring: Vec<u64>,
    hand: usize,
}

#[derive(Debug)]
struct Disk {
    /// Clusters with structures, if the image is written: no entry may name one as data.
    structures: HashSet<u64>,
    /// First cluster behind all used clusters.
    end: u64,
}

/// A second-level table.
#[derive(Debug)]
pub(super) struct Table {
    words: Box<[AtomicU64]>,
    /// Whether it was used since the clock's hand passed.
    is_used: AtomicBool,
}

/// The entry of a part of the disk in the first-level table.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// The part has no allocated clusters.
    Absent,
    /// The table is not in memory.
    Unread,
    Table(Arc<Table>),
}

impl Table {
    /// A word of the table.
    pub(super) fn word(&self, index: usize) -> u64 {
        self.words.get(index).map_or(INVALID, |word| word.load(Ordering::Acquire))
    }

    fn touch(&self) {
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
    }
}

impl Tables {
    /// Reads the first-level table. `end`: clusters of the file.
    pub(super) fn read(file: &ImageFile, header: &Header, end: u64) -> io::Result<Self> {
        let state = State {
            l1_offset: header.l1_offset,
            l1: read_words(file, header.l1_offset, header.l1_entries)?,
            cached: HashMap::new(),
            ring: Vec::new(),
            hand: 0,
        };
        let disk = Mutex::new(Disk { structures: HashSet::new(), end });
        Ok(Self { layout: header.layout, state: RwLock::new(state), disk })
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that clusters `begin` to `end` hold structures.
    pub(super) fn protect(&self, begin: u64, end: u64) {
        self.disk().structures.extend(begin..end);
    }

    /// Returns whether structures lie in a cluster.
    pub(super) fn is_protected(&self, cluster: u64) -> bool {
        self.disk().structures.contains(&cluster)
    }

    /// Sets the number of clusters of the file.
    pub(super) fn set_end(&self, end: u64) {
        self.disk().end = end;
    }

    /// Returns the entries of the first-level table.
    pub(super) fn l1(&self) -> Vec<u64> {
        self.read_state().l1.clone()
    }

    /// Returns entry `index` of the first-level table. Entries past its end are zero.
    pub(super) fn l1_entry(&self, index: u64) -> u64 {
        self.read_state().entry(index)
    }

    /// Returns the table of entry `index`, if it is known without I/O and without a wait.
    pub(super) fn peek(&self, index: u64) -> Found {
        match self.state.try_read() {
            Ok(state) => state.find(index),
            Err(TryLockError::Poisoned(state)) => state.into_inner().find(index),
            Err(TryLockError::WouldBlock) => Found::Unread,
        }
    }

    /// Returns the table of entry `index`, read from the file if need be. `None`: it has none.
    pub(super) fn get(&self, file: &ImageFile, index: u64) -> io::Result<Option<Arc<Table>>> {
        self.load(file, index, &self.disk())
    }

    fn load(&self, file: &ImageFile, index: u64, disk: &Disk) -> io::Result<Option<Arc<Table>>> {
        let entry = {
            let state = self.read_state();
            match state.find(index) {
                Found::Absent => return Ok(None),
                Found::Table(table) => return Ok(Some(table)),
                Found::Unread => state.entry(index),
            }
        };
        let offset = table_offset(entry);
        if !offset.is_multiple_of(self.layout.cluster()) || offset >> self.layout.bits >= disk.end {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let words = read_words(file, offset, self.layout.cluster() / 8)?;
        let table = Arc::new(self.judged(index, words, disk));
        self.write_state().insert(index, Arc::clone(&table), self.max_tables());
        Ok(Some(table))
    }

    /// Returns the table of entry `index` with these words, in which every invalid entry becomes
    /// [`INVALID`].
    fn judged(&self, index: u64, mut words: Vec<u64>, disk: &Disk) -> Table {
        for (slot, words) in words.chunks_exact_mut(self.layout.words()).enumerate() {
            let position = index * self.layout.reach() + slot as u64 * self.layout.cluster();
            if !self.makes_sense(words[0], position, disk) {
                words[0] = INVALID;
            }
        }
        Table::new(words)
    }

    /// Returns whether the location that an entry names is in the file and free of structures.
    fn makes_sense(&self, word: u64, position: u64, disk: &Disk) -> bool {
        match self.layout.decode(word, position) {
            Cluster::Unallocated | Cluster::Zero { .. } => true,
            Cluster::Data { offset, .. } => {
                let cluster = offset >> self.layout.bits;
                self.layout.external || cluster < disk.end && !disk.structures.contains(&cluster)
            }
            Cluster::Compressed { offset, .. } => offset >> self.layout.bits < disk.end,
            Cluster::Invalid => false,
        }
    }

    fn max_tables(&self) -> usize {
        MIN_TABLES.max((MAX_CACHE / self.layout.cluster()) as usize)
    }

    /// Replaces the words of a table from `slot` on, in the file first. `count` is called in
    /// between, so that a reader of the new words also sees the count. The table must exist; only
    /// images without subclusters are written.
    pub(super) fn update(
        &self,
        file: &ImageFile,
        index: u64,
        slot: u64,
        words: &[u64],
        count: impl FnOnce(),
    ) -> io::Result<()> {
        let disk = self.disk();
        let table = self
            .load(file, index, &disk)?
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EIO))?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        file.write(&bytes, table_offset(self.l1_entry(index)) + slot * 8)?;
        count();
        for (target, &word) in table.words[slot as usize..].iter().zip(words) {
            target.store(word, Ordering::Release);
        }
        Ok(())
    }

    /// Makes the table at `offset`, with these words, the table of entry `index`: in the file
    /// first. The table is already durable, and the first level has that entry.
    pub(super) fn set_table(
        &self,
        file: &ImageFile,
        index: u64,
        offset: u64,
        words: Vec<u64>,
        count: impl FnOnce(),
    ) -> io::Result<()> {
        let mut disk = self.disk();
        let entry = offset | COPIED;
        let l1_offset = self.read_state().l1_offset;
        file.write(&entry.to_be_bytes(), l1_offset + index * 8)?;
        count();
        disk.structures.insert(offset >> self.layout.bits);
        let table = Arc::new(self.judged(index, words, &disk));
        let mut state = self.write_state();
        if let Some(place) = state.l1.get_mut(index as usize) {
            *place = entry;
        }
        state.insert(index, table, self.max_tables());
        Ok(())
    }

    /// Sets the first-level table's offset and number of entries.
    pub(super) fn move_l1(&self, offset: u64, entries: u64) {
        let mut state = self.write_state();
        state.l1_offset = offset;
        state.l1.resize(entries as usize, 0);
    }
}

impl Table {
    fn new(words: Vec<u64>) -> Self {
        Self {
            words: words.into_iter().map(AtomicU64::new).collect(),
            is_used: AtomicBool::new(false),
        }
    }
}

impl State {
    fn entry(&self, index: u64) -> u64 {
        usize::try_from(index).ok().and_then(|index| self.l1.get(index)).copied().unwrap_or(0)
    }

    fn find(&self, index: u64) -> Found {
        if let Some(table) = self.cached.get(&index) {
            table.touch();
            return Found::Table(Arc::clone(table));
        }
        if table_offset(self.entry(index)) == 0 { Found::Absent } else { Found::Unread }
    }

    /// Adds a table to the cache. If the cache is full, it replaces one that was not used recently.
    fn insert(&mut self, index: u64, table: Arc<Table>, max: usize) {
        if self.cached.insert(index, table).is_some() {
            return;
        }
        if self.ring.len() < max {
            self.ring.push(index);
            return;
        }
        // The loop ends in the second round at the latest.
        loop {
            self.hand = (self.hand + 1) % self.ring.len();
            let old = self.ring[self.hand];
            let is_used = |table: &Arc<Table>| table.is_used.swap(false, Ordering::Relaxed);
            if !self.cached.get(&old).is_some_and(is_used) {
                self.cached.remove(&old);
                self.ring[self.hand] = index;
                return;
            }
        }
    }
}

/// Reads words from the file. Words behind its end are zero.
pub(super) fn read_words(file: &ImageFile, offset: u64, count: u64) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; count as usize * 8];
    let there = file.len()?.saturating_sub(offset).min(count * 8);
    file.read(&mut bytes[..there as usize], offset)?;
    Ok(bytes
        .chunks_exact(8)
        .map(|word| u64::from_be_bytes(std::array::from_fn(|at| word[at])))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State { l1_offset: 0, l1: vec![0; 8], cached: HashMap::new(), ring: Vec::new(), hand: 0 }
    }

    #[test]
    fn test_cache_is_bounded_and_keeps_what_is_used() {
        let mut state = state();
        for index in 0..100 {
            state.insert(index, Arc::new(Table::new(vec![index])), 8);
            // The table is used in every round.
            assert!(matches!(state.find(0), Found::Table(_)), "after {index}");
            assert!(state.cached.len() <= 8 && state.ring.len() <= 8);
            assert!(state.cached.get(&index).is_some_and(|table| table.word(0) == index));
        }
    }

    #[test]
    fn test_table_that_no_entry_names_is_absent_and_another_unread() {
        let mut state = state();
        state.l1[3] = 0x10000 | COPIED;
        assert!(matches!(state.find(2), Found::Absent));
        assert!(matches!(state.find(3), Found::Unread));
        assert!(matches!(state.find(u64::MAX), Found::Absent));
    }
}
