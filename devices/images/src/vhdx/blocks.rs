//! Allocation of blocks, copies of their content from the parents, and their release.
//!
//! A block's entry is published when its space, and the data copied there, are durable. That takes
//! an fsync, which several blocks share: [`Vhdx::materialize`] prepares a block as far as possible,
//! and [`Vhdx::settle`] makes all prepared blocks durable and publishes them.

use std::sync::atomic::Ordering;

use synthvm_block::IoError;

use super::bat::{Entry, State};
use super::locate::Reading;
use super::{Vhdx, Writer};
use crate::mapped::{Extents, Location};

/// Bytes that are copied from a parent in one step.
const COPY: u64 = 1 << 20;

/// A block during the copy of its content from the parents to its own space.
#[derive(Debug)]
pub(super) struct CopyUp {
    /// The offset of its space.
    offset: u64,
    /// Bytes that are copied, from the beginning of the block.
    done: u64,
    /// Whether its space may hold old data, so that zeroes must be written, too.
    dirty: bool,
}

#[cfg(test)]
impl CopyUp {
    pub(super) fn is_complete(&self, length: u64) -> bool {
        self.done == length
    }
}

/// The result of an attempt to give a block space of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It has space.
    Ready,
    /// A part of its content was copied.
    Again,
    /// It will have space after [`Vhdx::settle`] and another attempt.
    AfterSettling,
}

impl Vhdx {
    /// Gives a block space of its own, with the content that the disk shows there. Does a bounded
    /// part of the work.
    pub(super) fn materialize(&self, writer: &mut Writer, block: u64) -> Result<Progress, IoError> {
        let state = self.bat.block(block).state();
        if state == Some(State::Present) {
            return Ok(Progress::Ready);
        }
        if writer.copies.contains_key(&block) {
            return self.copy_up(writer, block);
        }
        if state == Some(State::Partial) {
            let offset = self.bat.block(block).offset();
            writer.copies.insert(block, CopyUp { offset, done: 0, dirty: true });
            return self.copy_up(writer, block);
        }
        let size = self.metadata.block_size;
        let Some(offset) = writer.space.take(&self.structures.file, block, size)? else {
            return Ok(Progress::AfterSettling);
        };
        if state == Some(State::NotPresent) && self.parent.is_some() {
            writer.copies.insert(block, CopyUp { offset, done: 0, dirty: false });
            return self.copy_up(writer, block);
        }
        self.publish(writer, block, offset)
    }

    fn publish(&self, writer: &mut Writer, block: u64, offset: u64) -> Result<Progress, IoError> {
        match self.set(block, Entry::present(offset)) {
            Ok(()) => Ok(Progress::Ready),
            Err(error) => {
                self.give_back(writer, block, offset);
                Err(error)
            }
        }
    }

    /// Copies the next part of a block.
    fn copy_up(&self, writer: &mut Writer, block: u64) -> Result<Progress, IoError> {
        let begin = block * self.metadata.block_size;
        let length = self.metadata.block_size.min(self.capacity.load(Ordering::Acquire) - begin);
        let Some(copy) = writer.copies.get_mut(&block) else { return Ok(Progress::Again) };
        // Zeroes need no copy into fresh space.
        let result = if copy.done == 0 && !copy.dirty && self.reads_as_zero(begin, length) {
            let offset = copy.offset;
            writer.copies.remove(&block);
            return self.publish(writer, block, offset);
        } else {
            self.copy_part(copy, begin, length)
        };
        match result {
            Ok(()) if copy.done < length => Ok(Progress::Again),
            Ok(()) => Ok(Progress::AfterSettling),
            Err(error) => {
                self.abandon(writer, block);
                Err(error)
            }
        }
    }

    fn copy_part(&self, copy: &mut CopyUp, begin: u64, length: u64) -> Result<(), IoError> {
        let mut left = COPY;
        let mut bytes = Vec::new();
        while copy.done < length && left != 0 {
            let mut extents = Extents::default();
            let step = left.min(length - copy.done);
            Self::locate_in(
                Some(self),
                0,
                begin + copy.done,
                step,
                Reading::Allowed,
                &mut extents,
            )?;
            let Some(extent) = extents.as_slice().first() else {
                return Err(IoError::Os(libc::EIO));
            };
            let len = extent.length;
            match extent.location {
                Location::File { file: 0, .. } | Location::Memory { .. } => {}
                Location::Zero if !copy.dirty => {}
                Location::Zero => {
                    bytes.clear();
                    bytes.resize(len as usize, 0);
                    self.structures.file.write(&bytes, copy.offset + copy.done)?;
                }
                Location::File { file, offset } => {
                    bytes.resize(len as usize, 0);
                    self.read_file(file, &mut bytes, offset)?;
                    self.structures.file.write(&bytes, copy.offset + copy.done)?;
                }
            }
            copy.done += len;
            left -= len;
        }
        Ok(())
    }

    /// Makes all preparations durable, and publishes the blocks that are complete.
    pub(super) fn settle(&self, writer: &mut Writer) -> Result<(), IoError> {
        let size = self.metadata.block_size;
        let capacity = self.capacity.load(Ordering::Acquire);
        let length = |block: u64| size.min(capacity.saturating_sub(block * size));
        let complete: Vec<(u64, u64)> = (writer.copies.iter())
            .filter(|(block, copy)| copy.done >= length(**block))
            .map(|(&block, copy)| (block, copy.offset))
            .collect();
        if complete.is_empty() && !writer.space.has_grown() {
            return Ok(());
        }
        if let Err(error) = self.structures.file.sync() {
            // The copies may be lost even if a later sync succeeds, so they are made again.
            for (block, _) in complete {
                if let Some(copy) = writer.copies.get_mut(&block) {
                    copy.done = 0;
                }
            }
            return Err(error.into());
        }
        writer.space.settle();
        for (block, offset) in complete {
            // The copy must be durable before the entry hides the parents' content.
            self.set(block, Entry::present(offset))?;
            writer.copies.remove(&block);
        }
        Ok(())
    }

    /// Discards the state of a copy-up.
    fn abandon(&self, writer: &mut Writer, block: u64) {
        if let Some(copy) = writer.copies.remove(&block)
            && self.bat.block(block).state() != Some(State::Partial)
        {
            self.give_back(writer, block, copy.offset);
        }
    }

    /// Releases the space of a block. If it reads as zero again, the same block can use it again.
    /// Other space is lost until the file is opened again.
    pub(super) fn give_back(&self, writer: &mut Writer, block: u64, offset: u64) {
        if self.structures.file.punch(offset, self.metadata.block_size) == Ok(true) {
            writer.space.keep(block, offset);
        }
    }

    /// Zeroes a whole block without writing its bytes. `unmap`: its space may be released. Returns
    /// false if the block must be zeroed in place.
    pub(super) fn drop_block(
        &self,
        writer: &mut Writer,
        block: u64,
        unmap: bool,
    ) -> Result<bool, IoError> {
        let entry = self.bat.block(block);
        match entry.state() {
            Some(State::Zero) => {}
            Some(State::NotPresent) if self.parent.is_none() => {}
            Some(State::NotPresent) => {
                self.set(block, Entry::ZERO)?;
                self.abandon(writer, block);
            }
            Some(State::Present) if self.metadata.fixed || !unmap => return Ok(false),
            _ => {
                self.set(block, Entry::ZERO)?;
                writer.copies.remove(&block);
                self.give_back(writer, block, entry.offset());
            }
        }
        Ok(true)
    }

    /// Prepares the next allocations, so that they need no barrier.
    pub(super) fn work_ahead(&self, writer: &mut Writer) -> Result<(), IoError> {
        if writer.space.runs_low(self.metadata.block_size) {
            writer.space.extend(&self.structures.file, self.metadata.block_size)?;
            self.settle(writer)?;
        }
        Ok(())
    }
}
