//! The disk as a [`Map`]: its lookups, and the requests that need the metadata thread.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use synthvm_block::{Backend, Discard, Geometry, IoError};
use tracing::debug;

use super::bat::State;
use super::blocks::Progress;
use super::layout::{MAX_CAPACITY, SECTOR};
use super::locate::{Piece, Reading, Stop};
use super::{Vhdx, Writer};
use crate::mapped::{Changes, Clearing, Extents, InFile, Known, Location, Map, Step, StepResult};

/// Blocks that one step of an UNMAP or of zeroing changes. Each takes a write of its entry and a
/// hole in the file, some 50 us.
const MAX_CHANGES_OF_STEP: usize = 32;

/// Blocks that one step inspects.
const MAX_BLOCKS_OF_STEP: usize = 16384;

/// Blocks that a lookup without the metadata thread inspects.
const MAX_BLOCKS_AT_ONCE: u64 = 16;

/// The ways to clear a part of a block.
enum Cleared {
    /// The part reads as zero, or may keep its bytes.
    Already,
    /// The part is zeroed at this offset in the file.
    InPlace(u64),
    /// The block's entry changes, or the block needs space.
    Change,
}

impl Vhdx {
    /// Takes the lock for a change of structures in the range.
    fn begin_change(&self, offset: u64, length: u64) -> Result<MutexGuard<'_, Writer>, IoError> {
        let mut writer = self.lock();
        // The check holds the lock, as the disk may have shrunk.
        if offset + length > self.capacity.load(Ordering::Acquire) {
            return Err(IoError::EndOfImage);
        }
        self.begin(&mut writer)?;
        Ok(writer)
    }

    /// Returns whether the piece covers the whole block, as far as it lies on the disk.
    fn is_whole(&self, piece: &Piece) -> bool {
        let size = self.metadata.block_size;
        let left = self.capacity.load(Ordering::Acquire).saturating_sub(piece.block * size);
        piece.within == 0 && piece.length == size.min(left)
    }

    fn judge(&self, clearing: Clearing, piece: &Piece) -> Cleared {
        let entry = self.bat.block(piece.block);
        let unmap = clearing.may_unmap();
        match entry.state() {
            Some(State::Zero) => Cleared::Already,
            Some(State::NotPresent) if self.parent.is_none() => Cleared::Already,
            Some(State::Present) if self.is_whole(piece) && unmap && !self.metadata.fixed => {
                Cleared::Change
            }
            Some(State::Present) => Cleared::InPlace(entry.offset() + piece.within),
            // A discard may leave parts unchanged, so it needs no copy-up.
            _ if clearing == Clearing::Discard && !self.is_whole(piece) => Cleared::Already,
            _ => Cleared::Change,
        }
    }

    fn change(
        &self,
        writer: &mut Writer,
        clearing: Clearing,
        piece: &Piece,
        extents: &mut Extents,
    ) -> Result<Progress, IoError> {
        let unmap = clearing.may_unmap();
        let whole = self.is_whole(piece);
        if whole && self.drop_block(writer, piece.block, unmap)?
            || self
                .reads_as_zero(piece.block * self.metadata.block_size + piece.within, piece.length)
        {
            return Ok(Progress::Ready);
        }
        let progress = self.materialize(writer, piece.block)?;
        if progress == Progress::Ready {
            let offset = self.bat.block(piece.block).offset() + piece.within;
            extents.push(piece.length, Location::File { file: 0, offset });
        }
        Ok(progress)
    }
}

impl Map for Vhdx {
    fn geometry(&self) -> Geometry {
        Geometry {
            capacity: self.capacity.load(Ordering::Acquire),
            block_size: self.metadata.sector,
            physical_block_size: self.metadata.physical_sector.max(self.metadata.sector.bytes()),
            read_only: self.read_only,
            write_cache: true,
            rotational: false,
            // If a discard covers a part of a block that the child lacks, the parent stays visible.
            discard: Some(Discard { granularity: SECTOR as u32, zeroes: self.parent.is_none() }),
        }
    }

    fn identity(&self) -> &[u8] {
        self.identity_bytes()
    }

    fn files(&self) -> &[Arc<dyn Backend>] {
        &self.files
    }

    /// Finds a run within a block that is in this file.
    fn try_run(&self, write: bool, offset: u64, length: u64) -> Option<InFile> {
        let (block, within) = self.metadata.split(offset);
        let end = offset.checked_add(length)?;
        if length == 0
            || end > self.capacity.load(Ordering::Acquire)
            || length > self.metadata.block_size - within
            || write && !self.begun.load(Ordering::Acquire)
        {
            return None;
        }
        let entry = self.bat.block(block);
        let offset = entry.offset() + within;
        let is_there = entry.state() == Some(State::Present)
            && (write || self.structures.is_there(offset, length));
        is_there.then_some(InFile { file: 0, offset })
    }

    fn try_locate(&self, offset: u64, length: u64, extents: &mut Extents) -> Known {
        match Self::locate_in(Some(self), 0, offset, length, Reading::Forbidden, extents) {
            Ok(()) => Some(Ok(())),
            Err(Stop::Reading) => None,
            Err(Stop::Failed(error)) => Some(Err(error)),
        }
    }

    fn try_allocate(&self, offset: u64, length: u64, extents: &mut Extents) -> Known {
        if !self.begun.load(Ordering::Acquire) {
            return None;
        }
        for piece in self.pieces(offset, length) {
            let entry = self.bat.block(piece.block);
            if entry.state() != Some(State::Present) {
                return None;
            }
            extents.push(
                piece.length,
                Location::File { file: 0, offset: entry.offset() + piece.within },
            );
        }
        Some(Ok(()))
    }

    fn try_clear(&self, how: Clearing, offset: u64, length: u64, extents: &mut Extents) -> Known {
        if !self.begun.load(Ordering::Acquire)
            || length > MAX_BLOCKS_AT_ONCE * self.metadata.block_size
        {
            return None;
        }
        for piece in self.pieces(offset, length) {
            match self.judge(how, &piece) {
                Cleared::Already => {}
                Cleared::InPlace(offset) => {
                    extents.push(piece.length, Location::File { file: 0, offset });
                }
                Cleared::Change => return None,
            }
        }
        Some(Ok(()))
    }

    fn locate(&self, offset: u64, length: u64, extents: &mut Extents) -> StepResult {
        Self::locate_in(Some(self), 0, offset, length, Reading::Allowed, extents)?;
        Ok(Step::Done(length))
    }

    fn allocate(&self, offset: u64, length: u64, extents: &mut Extents) -> StepResult {
        let mut writer = self.begin_change(offset, length)?;
        let mut missing = None;
        for piece in self.pieces(offset, length) {
            match self.materialize(&mut writer, piece.block)? {
                Progress::Ready => {}
                Progress::AfterSettling => missing = Some(Step::Barrier),
                Progress::Again => return Ok(Step::Again),
            }
        }
        if let Some(step) = missing {
            return Ok(step);
        }
        for piece in self.pieces(offset, length) {
            let offset = self.bat.block(piece.block).offset() + piece.within;
            extents.push(piece.length, Location::File { file: 0, offset });
        }
        Ok(Step::Done(length))
    }

    fn clear(&self, how: Clearing, offset: u64, length: u64, extents: &mut Extents) -> StepResult {
        let mut writer = self.begin_change(offset, length)?;
        let (mut done, mut changes) = (0, 0);
        for piece in self.pieces(offset, length).take(MAX_BLOCKS_OF_STEP) {
            let progress = match self.judge(how, &piece) {
                Cleared::Already => Progress::Ready,
                Cleared::InPlace(offset) => {
                    extents.push(piece.length, Location::File { file: 0, offset });
                    Progress::Ready
                }
                Cleared::Change => {
                    changes += 1;
                    self.change(&mut writer, how, &piece, extents)?
                }
            };
            match progress {
                Progress::Ready => done += piece.length,
                // The pieces before this one are finished. The next call begins with this one.
                _ if done != 0 => break,
                Progress::Again => return Ok(Step::Again),
                Progress::AfterSettling => return Ok(Step::Barrier),
            }
            if changes >= MAX_CHANGES_OF_STEP {
                break;
            }
        }
        Ok(Step::Done(done))
    }

    fn barrier(&self) -> Result<(), IoError> {
        self.settle(&mut self.lock())
    }

    fn idle(&self) {
        let mut writer = self.lock();
        if let Err(error) = self.work_ahead(&mut writer) {
            // The request that needs the space will fail with the error.
            debug!(image = %self.identity.display(), %error, "a VHDX could not grow ahead of need");
        }
    }

    fn changes(&self) -> &Changes {
        &self.changes
    }

    fn resize(&self, capacity: u64) -> Result<(), IoError> {
        if self.read_only {
            return Err(IoError::ReadOnly);
        }
        // A larger child would need entries of chunks, and its new part must not show the parent.
        if self.parent.is_some()
            || capacity == 0
            || !capacity.is_multiple_of(self.metadata.sector.bytes().into())
        {
            return Err(IoError::Unsupported);
        }
        if capacity > MAX_CAPACITY {
            return Err(IoError::NoSpace);
        }
        let mut writer = self.lock();
        self.begin(&mut writer)?;
        if capacity < self.capacity.load(Ordering::Acquire) {
            self.shrink(&mut writer, capacity)
        } else {
            self.grow(capacity)
        }
    }
}
