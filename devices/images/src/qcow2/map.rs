//! The disk as a [`Map`].

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use synthvm_block::BlockSize;
use synthvm_block::{Backend, Discard, Geometry, IoError};

use super::Qcow2;
use super::allocate::{Content, Progress};
use super::entry::Cluster;
use super::locate::{Mode, Stop};
use super::tables::Found;
use crate::mapped::{Changes, Clearing, Extents, InFile, Known, Location, Map, Step, StepResult};

/// Bytes that one step allocates.
const MAX_STEP: u64 = 1 << 20;
/// The reserve is filled, on an idle thread, if less is left.
const LOW_RESERVE: u64 = 8 << 20;

impl Map for Qcow2 {
    fn geometry(&self) -> Geometry {
        // Version 2 cannot express a zero cluster over a backing file.
        let granularity = self.layout.cluster().max(4096) as u32;
        let discard = (self.layout.version >= 3).then_some(Discard { granularity, zeroes: true });
        Geometry {
            capacity: self.capacity(),
            block_size: BlockSize::B512,
            physical_block_size: 4096,
            read_only: self.read_only,
            write_cache: true,
            rotational: false,
            discard,
        }
    }

    fn identity(&self) -> &[u8] {
        self.identity.as_os_str().as_bytes()
    }

    fn files(&self) -> &[Arc<dyn Backend>] {
        &self.files
    }

    fn written_files(&self) -> &[usize] {
        if self.data.is_some() { &[0, 1] } else { &[0] }
    }

    /// Finds a run within one cluster.
    fn try_run(&self, write: bool, offset: u64, length: u64) -> Option<InFile> {
        let (layout, (_, file)) = (self.layout, self.data_file());
        let (within, end) = (offset % layout.cluster(), offset.checked_add(length)?);
        let is_outside = length == 0 || end > self.capacity() || length > layout.cluster() - within;
        if is_outside || layout.extended || write && !self.begun.load(Ordering::Acquire) {
            return None;
        }
        let Found::Table(table) = self.tables.peek(offset / layout.reach()) else { return None };
        let slot = (offset / layout.cluster() % layout.entries()) as usize;
        let Cluster::Data { offset: cluster, copied } =
            layout.decode(table.word(slot), offset - within)
        else {
            return None;
        };
        let at = cluster + within;
        // The file may end within its last cluster.
        let is_there =
            if write { copied } else { at + length <= self.files[file].geometry().capacity };
        is_there.then_some(InFile { file, offset: at })
    }

    fn try_locate(&self, offset: u64, length: u64, extents: &mut Extents) -> Known {
        match self.locate_from(offset, length, Mode::Memory, extents) {
            Ok(done) => (done == length).then_some(Ok(())),
            Err(Stop::Wait) => None,
            Err(Stop::Error(error)) => Some(Err(error)),
        }
    }

    /// Succeeds if all clusters have locations already.
    fn try_allocate(&self, offset: u64, length: u64, extents: &mut Extents) -> Known {
        if !self.begun.load(Ordering::Acquire) {
            return None;
        }
        let (layout, end, (_, file)) = (self.layout, offset + length, self.data_file());
        let mut at = offset;
        while at < end {
            let Found::Table(table) = self.tables.peek(at / layout.reach()) else { return None };
            let until = end.min((at / layout.reach() + 1) * layout.reach());
            while at < until {
                let within = at % layout.cluster();
                let length = (layout.cluster() - within).min(until - at);
                let slot = (at / layout.cluster() % layout.entries()) as usize;
                match layout.decode(table.word(slot), at - within) {
                    Cluster::Data { offset, copied: true } => {
                        extents.push(length, Location::File { file, offset: offset + within });
                    }
                    Cluster::Invalid => return Some(Err(IoError::Os(libc::EIO))),
                    _ => return None,
                }
                at += length;
            }
        }
        Some(Ok(()))
    }

    fn locate(&self, offset: u64, length: u64, extents: &mut Extents) -> StepResult {
        match self.locate_from(offset, length, Mode::Files, extents) {
            Ok(0) if length != 0 => Ok(Step::Again),
            Ok(done) => Ok(Step::Done(done)),
            Err(Stop::Wait) => Ok(Step::Again),
            Err(Stop::Error(error)) => Err(error),
        }
    }

    fn allocate(&self, offset: u64, length: u64, extents: &mut Extents) -> StepResult {
        let length = length.min(MAX_STEP);
        let mut writer = self.lock();
        self.check_range(offset, length)?;
        self.begin(&mut writer)?;
        if self.materialize(&mut writer, offset, length, Content::Kept)? == Progress::Barrier {
            return Ok(Step::Barrier);
        }
        let (mut at, end, file) = (offset, offset + length, self.data_file().1);
        while at < end {
            let within = at % self.layout.cluster();
            let length = (self.layout.cluster() - within).min(end - at);
            match self.cluster_at(at - within)? {
                Cluster::Data { offset, .. } => {
                    extents.push(length, Location::File { file, offset: offset + within });
                }
                _ => return Err(IoError::Os(libc::EIO)),
            }
            at += length;
        }
        Ok(Step::Done(length))
    }

    fn clear(&self, _: Clearing, offset: u64, length: u64, extents: &mut Extents) -> StepResult {
        let mut writer = self.lock();
        self.check_range(offset, length)?;
        self.begin(&mut writer)?;
        self.clear_step(&mut writer, offset, length, self.capacity(), extents)
    }

    fn barrier(&self) -> Result<(), IoError> {
        self.make_copies_durable()
    }

    /// Fills the reserve, so that few requests wait for it.
    fn idle(&self) {
        if !self.begun.load(Ordering::Acquire) || self.layout.external {
            return;
        }
        let mut writer = self.lock();
        let low = LOW_RESERVE.min(writer.counts.end() << self.layout.bits >> 4) >> self.layout.bits;
        if writer.reserve.left() < low {
            // A request that needs a cluster will fail with the error.
            let _ = self.fill_reserve(&mut writer, 1);
        }
    }

    fn changes(&self) -> &Changes {
        &self.changes
    }

    fn resize(&self, capacity: u64) -> Result<(), IoError> {
        self.change_capacity(capacity)
    }
}

impl Qcow2 {
    /// Checks the range again: the disk may have shrunk since the request was checked.
    fn check_range(&self, offset: u64, length: u64) -> Result<(), IoError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.capacity() => Ok(()),
            _ => Err(IoError::EndOfImage),
        }
    }
}
