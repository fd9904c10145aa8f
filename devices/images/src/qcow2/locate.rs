//! The lookup of the locations of the disk's bytes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, TryLockError};

use synthvm_block::IoError;

use super::Qcow2;
use super::entry::{Cluster, Subcluster, subcluster};
use super::tables::{Found, Table};
use crate::file::ImageFile;
use crate::mapped::{Extents, Location, Step};

/// Most bytes that one lookup decompresses, unless a single cluster has more.
const MAX_UNPACKED: u64 = 1 << 20;
/// Clusters, and parts of the disk without a table, that one lookup passes. A request has fewer.
const MAX_LOOKS: u64 = 4096;

/// The cluster that was decompressed last: the next small read often needs it again.
#[derive(Debug, Default)]
pub(super) struct Unpacked(Option<(u64, Arc<[u8]>)>);

/// The incomplete sector at the end of a file, padded to a whole sector, because requests move
/// whole sectors.
#[derive(Debug)]
pub(super) struct Tail {
    offset: u64,
    bytes: Arc<[u8]>,
}

impl Tail {
    /// Reads the tail of `file`. It is all zero for a file of whole sectors.
    pub(super) fn read(file: &ImageFile) -> std::io::Result<Self> {
        let length = file.len()?;
        let (offset, mut bytes) = (length / 512 * 512, [0; 512]);
        file.read(&mut bytes[..(length - offset) as usize], offset)?;
        Ok(Self { offset, bytes: bytes.into() })
    }
}

/// Whether a lookup may read files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// No I/O and no wait.
    Memory,
    Files,
}

/// A lookup: the extents that it has found, and the work that it has done.
struct Lookup<'a> {
    mode: Mode,
    extents: &'a mut Extents,
    /// Bytes that were decompressed.
    unpacked: u64,
    looks: u64,
}

impl<'a> Lookup<'a> {
    fn new(mode: Mode, extents: &'a mut Extents) -> Self {
        Self { mode, extents, unpacked: 0, looks: 0 }
    }

    /// Returns whether this lookup has done enough and leaves the rest to another one.
    fn is_enough(&self) -> bool {
        self.unpacked >= MAX_UNPACKED || self.looks >= MAX_LOOKS
    }
}

/// A reason why a lookup ends early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The lookup would have to wait.
    Wait,
    Error(IoError),
}

impl From<IoError> for Stop {
    fn from(error: IoError) -> Self {
        Self::Error(error)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Error(error.into())
    }
}

impl Qcow2 {
    /// Adds the locations of the bytes to `extents`. Returns the number of those bytes: all, unless
    /// the lookup would take too much work.
    pub(super) fn locate_from(
        &self,
        offset: u64,
        length: u64,
        mode: Mode,
        extents: &mut Extents,
    ) -> Result<u64, Stop> {
        let end = offset + length;
        let (mut at, mut lookup) = (offset, Lookup::new(mode, extents));
        while at < end && !lookup.is_enough() {
            let index = at / self.layout.reach();
            let until = end.min((index + 1) * self.layout.reach());
            let found = match mode {
                Mode::Memory => self.tables.peek(index),
                Mode::Files => {
                    self.tables.get(&self.file, index)?.map_or(Found::Absent, Found::Table)
                }
            };
            at += match found {
                Found::Unread => return Err(Stop::Wait),
                Found::Absent => {
                    lookup.looks += 1;
                    self.locate_in_parent(at, until - at, &mut lookup)?
                }
                Found::Table(table) => self.locate_by(&table, at, until - at, &mut lookup)?,
            };
            if at < until {
                break;
            }
        }
        Ok(at - offset)
    }

    /// Adds the locations of a part that one table maps.
    fn locate_by(
        &self,
        table: &Table,
        offset: u64,
        length: u64,
        lookup: &mut Lookup<'_>,
    ) -> Result<u64, Stop> {
        let (layout, end) = (self.layout, offset + length);
        let mut at = offset;
        while at < end && !lookup.is_enough() {
            lookup.looks += 1;
            let within = at % layout.cluster();
            let length = (layout.cluster() - within).min(end - at);
            let slot = (at / layout.cluster() % layout.entries()) as usize * layout.words();
            let cluster = layout.decode(table.word(slot), at - within);
            match cluster {
                Cluster::Data { offset: location, .. } if !layout.extended => {
                    self.push_data(location + within, length, lookup.extents);
                }
                Cluster::Data { .. } | Cluster::Unallocated | Cluster::Zero { .. }
                    if layout.extended =>
                {
                    let done =
                        self.locate_parts(cluster, table.word(slot + 1), at, length, lookup)?;
                    if done < length {
                        return Ok(at + done - offset);
                    }
                }
                Cluster::Data { .. } | Cluster::Invalid => {
                    return Err(IoError::Os(libc::EIO).into());
                }
                Cluster::Zero { .. } => lookup.extents.push(length, Location::Zero),
                Cluster::Unallocated => {
                    let done = self.locate_in_parent(at, length, lookup)?;
                    if done < length {
                        return Ok(at + done - offset);
                    }
                }
                Cluster::Compressed { offset, length: packed } => {
                    let bytes = self.unpack(offset, packed, lookup.mode)?;
                    lookup.unpacked += layout.cluster();
                    let location = Location::Memory { bytes, offset: within as usize };
                    lookup.extents.push(length, location);
                }
            }
            at += length;
        }
        Ok(at - offset)
    }

    /// Adds the locations of a part of a cluster with subclusters.
    fn locate_parts(
        &self,
        cluster: Cluster,
        bitmap: u64,
        offset: u64,
        length: u64,
        lookup: &mut Lookup<'_>,
    ) -> Result<u64, Stop> {
        let size = self.layout.cluster() / 32;
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let within = at % self.layout.cluster();
            let length = (size - within % size).min(end - at);
            match (subcluster(bitmap, within / size), cluster) {
                (Subcluster::Data, Cluster::Data { offset: location, .. }) => {
                    self.push_data(location + within, length, lookup.extents);
                }
                (Subcluster::Zero, _) => lookup.extents.push(length, Location::Zero),
                (Subcluster::Unallocated, _) => {
                    let done = self.locate_in_parent(at, length, lookup)?;
                    if done < length {
                        return Ok(at + done - offset);
                    }
                }
                (Subcluster::Data | Subcluster::Invalid, _) => {
                    return Err(IoError::Os(libc::EIO).into());
                }
            }
            at += length;
        }
        Ok(length)
    }

    /// Adds bytes of the data file. Behind its end there are zeroes.
    fn push_data(&self, offset: u64, length: u64, extents: &mut Extents) {
        let (_, file) = self.data_file();
        let end = self.files[file].geometry().capacity;
        let there = end.saturating_sub(offset).min(length);
        extents.push(there, Location::File { file, offset });
        let (mut at, until) = (offset + there, offset + length);
        if file == 0
            && let Some(within) =
                at.checked_sub(self.tail.offset).filter(|&within| within < 512 && at < until)
            && end == self.tail.offset
        {
            let there = (512 - within).min(until - at);
            extents.push(
                there,
                Location::Memory { bytes: Arc::clone(&self.tail.bytes), offset: within as usize },
            );
            at += there;
        }
        extents.push(until - at, Location::Zero);
    }

    /// Adds bytes of the backing file, or zeroes behind its end.
    fn locate_in_parent(
        &self,
        offset: u64,
        length: u64,
        lookup: &mut Lookup<'_>,
    ) -> Result<u64, Stop> {
        let parent = self.parent.as_ref();
        let there = parent
            .map_or(0, |parent| parent.geometry().capacity.saturating_sub(offset).min(length));
        let mut done = there;
        if let Some(parent) = parent.filter(|_| there != 0) {
            let first = self.files.len() - parent.files().len();
            let mut found = Extents::default();
            match lookup.mode {
                Mode::Memory => {
                    parent.try_locate(offset, there, &mut found).ok_or(Stop::Wait)??;
                }
                Mode::Files => match parent.locate(offset, there, &mut found)? {
                    Step::Done(bytes) => done = bytes,
                    Step::Again | Step::Barrier => done = 0,
                },
            }
            for extent in found.as_slice() {
                let location = match extent.location.clone() {
                    Location::File { file, offset } => {
                        Location::File { file: first + file, offset }
                    }
                    location => location,
                };
                lookup.extents.push(extent.length, location);
            }
        }
        if done < there {
            return Ok(done);
        }
        lookup.extents.push(length - there, Location::Zero);
        Ok(length)
    }

    /// Returns the content of the compressed cluster at `offset` of the file.
    fn unpack(&self, offset: u64, packed: u64, mode: Mode) -> Result<Arc<[u8]>, Stop> {
        let last = match (mode, self.unpacked.try_lock()) {
            (_, Ok(last)) => Some(last),
            (_, Err(TryLockError::Poisoned(last))) => Some(last.into_inner()),
            (Mode::Memory, Err(TryLockError::WouldBlock)) => None,
            (Mode::Files, _) => Some(self.unpacked.lock().unwrap_or_else(PoisonError::into_inner)),
        };
        let Some(mut last) = last else { return Err(Stop::Wait) };
        match &last.0 {
            // While the image is open, no other data is written there.
            Some((at, bytes)) if *at == offset => return Ok(Arc::clone(bytes)),
            _ if mode == Mode::Memory => return Err(Stop::Wait),
            _ => {}
        }
        let there = self.file.len()?.saturating_sub(offset).min(packed);
        let mut bytes = vec![0; there as usize];
        self.file.read(&mut bytes, offset)?;
        let unpacked = self.compression.unpack(&bytes, self.layout.cluster() as usize);
        let unpacked: Arc<[u8]> = unpacked.ok_or(IoError::Os(libc::EIO))?.into();
        last.0 = Some((offset, Arc::clone(&unpacked)));
        Ok(unpacked)
    }

    /// Returns the state of the cluster at `position` of the disk. May read the file.
    pub(super) fn cluster_at(&self, position: u64) -> Result<Cluster, IoError> {
        let Some(table) = self.tables.get(&self.file, position / self.layout.reach())? else {
            return Ok(Cluster::Unallocated);
        };
        let slot = (position / self.layout.cluster() % self.layout.entries()) as usize;
        Ok(self.layout.decode(table.word(slot * self.layout.words()), position))
    }

    /// Returns whether a range of the backing file may hold data other than zeroes. An error counts
    /// as data.
    pub(super) fn parent_has_data(&self, offset: u64, length: u64) -> bool {
        let mut extents = Extents::default();
        let mut lookup = Lookup::new(Mode::Files, &mut extents);
        match self.locate_in_parent(offset, length, &mut lookup) {
            Ok(done) if done == length => {
                extents.as_slice().iter().any(|extent| !matches!(extent.location, Location::Zero))
            }
            _ => true,
        }
    }

    /// Returns the bytes of the disk.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Acquire)
    }
}
