//! Where the disk's bytes lie, and how blocks come and go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use synthvm_storage::backend::{Backend, Discard, Geometry, IoError};

use super::bat::{Entry, State};
use super::layout::{MAX_CAPACITY, SECTOR};
use super::{Vhdx, Writer};
use crate::mapped::{Extents, Map, Place, Step};

/// Bytes that are copied at once from a parent.
const COPY: u64 = 1 << 20;

/// Blocks that one step of an UNMAP or of zeroing handles.
const MAX_BLOCKS_OF_STEP: usize = 64;

/// A part of a block.
struct Piece {
    block: u64,
    /// From the block's begin.
    within: u64,
    length: u64,
}

impl Vhdx {
    /// The range in parts of which none crosses a block's end.
    fn pieces(&self, offset: u64, length: u64) -> impl Iterator<Item = Piece> + use<> {
        let size = self.metadata.block_size;
        let (mut at, end) = (offset, offset + length);
        std::iter::from_fn(move || {
            let (block, within) = (at / size, at % size);
            let length = (end - at).min(size - within);
            at += length;
            (length != 0).then_some(Piece { block, within, length })
        })
    }

    /// `file`: which of the chain's files is this one's.
    fn locate_from(
        &self,
        file: usize,
        offset: u64,
        length: u64,
        extents: &mut Extents,
    ) -> Result<(), IoError> {
        // A child may be larger than its parent.
        let there = self.capacity.load(Ordering::Acquire).saturating_sub(offset).min(length);
        for piece in self.pieces(offset, there) {
            let Piece { block, within, length } = piece;
            let entry = self.bat.block(block);
            match entry.state() {
                Some(State::Present) => {
                    self.push_here(file, entry.offset() + within, length, extents);
                }
                Some(State::NotPresent) => {
                    self.locate_in_parent(file, block * self.metadata.block_size + within, length, extents)?;
                }
                Some(State::Partial) => self.locate_sectors(file, entry, &piece, extents)?,
                Some(State::Zero) | None => extents.push(length, Place::Zero),
            }
        }
        extents.push(length - there, Place::Zero);
        Ok(())
    }

    /// What lies in this file.
    fn push_here(&self, file: usize, offset: u64, length: u64, extents: &mut Extents) {
        let there = self.structures.there(offset, length);
        extents.push(there, Place::File { file, offset });
        extents.push(length - there, Place::Zero);
    }

    fn locate_in_parent(
        &self,
        file: usize,
        offset: u64,
        length: u64,
        extents: &mut Extents,
    ) -> Result<(), IoError> {
        match &self.parent {
            Some(parent) => parent.locate_from(file + 1, offset, length, extents)?,
            None => extents.push(length, Place::Zero),
        }
        Ok(())
    }

    /// A set bit of the bitmap: the sector is in this file; else it is the parent's.
    fn locate_sectors(
        &self,
        file: usize,
        entry: Entry,
        piece: &Piece,
        extents: &mut Extents,
    ) -> Result<(), IoError> {
        let sector = u64::from(self.metadata.sector.bytes());
        let per_block = self.metadata.block_size / sector;
        let base = piece.block % self.metadata.chunk_ratio() * per_block;
        let (first, last) = (piece.within / sector, (piece.within + piece.length).div_ceil(sector));
        let begin = (base + first) / 8;
        let mut bits = vec![0; ((base + last).div_ceil(8) - begin) as usize];
        self.structures.read(&mut bits, self.bat.bitmap(piece.block).offset() + begin)?;
        let block = piece.block * self.metadata.block_size;
        for index in first..last {
            let bit = base + index - begin * 8;
            let from = (index * sector).max(piece.within);
            let length = ((index + 1) * sector).min(piece.within + piece.length) - from;
            if bits[(bit / 8) as usize] >> (bit % 8) & 1 != 0 {
                self.push_here(file, entry.offset() + from, length, extents);
            } else {
                self.locate_in_parent(file, block + from, length, extents)?;
            }
        }
        Ok(())
    }

    /// Gives a block room of its own, with the content that it has. Where it is.
    fn materialize(&self, writer: &mut Writer, block: u64) -> Result<u64, IoError> {
        let entry = self.bat.block(block);
        let (offset, copy) = match entry.state() {
            Some(State::Present) => return Ok(entry.offset()),
            Some(State::Partial) => (entry.offset(), true),
            state => {
                let offset = writer.space.take(&self.structures.file, block, self.metadata.block_size)?;
                (offset, self.parent.is_some() && state == Some(State::NotPresent))
            }
        };
        let settle = || {
            if copy {
                self.copy_from_parents(block, offset)?;
                // Before the entry hides the parent's content.
                self.structures.file.sync()?;
            }
            self.set(block, Entry::present(offset))
        };
        settle().map(|()| offset).inspect_err(|_| {
            if entry.state() != Some(State::Partial) {
                self.give_back(writer, block, offset);
            }
        })
    }

    /// Room that reads as zero again can be used again for the same block; else it is lost until the file is opened anew.
    fn give_back(&self, writer: &mut Writer, block: u64, offset: u64) {
        if self.structures.file.punch(offset, self.metadata.block_size) == Ok(true) {
            writer.space.keep(block, offset);
        }
    }

    /// Fills what `block` has from its parents into its room at `offset`.
    fn copy_from_parents(&self, block: u64, offset: u64) -> Result<(), IoError> {
        let begin = block * self.metadata.block_size;
        let length = self.metadata.block_size.min(self.capacity.load(Ordering::Acquire) - begin);
        let mut extents = Extents::default();
        self.locate_from(0, begin, length, &mut extents)?;
        let mut bytes = vec![0; COPY as usize];
        let mut at = 0;
        for extent in extents.as_slice() {
            let mut done = 0;
            while done < extent.length {
                let len = (extent.length - done).min(COPY);
                let bytes = &mut bytes[..len as usize];
                match extent.place {
                    Place::File { file: 0, .. } | Place::Memory { .. } => {}
                    Place::Zero => {
                        bytes.fill(0);
                        self.structures.file.write(bytes, offset + at + done)?;
                    }
                    Place::File { file, offset: from } => {
                        self.read_file(file, bytes, from + done)?;
                        self.structures.file.write(bytes, offset + at + done)?;
                    }
                }
                done += len;
            }
            at += extent.length;
        }
        Ok(())
    }

    fn read_file(&self, file: usize, bytes: &mut [u8], offset: u64) -> Result<(), IoError> {
        match (file, &self.parent) {
            (0, _) | (_, None) => Ok(self.structures.file.read(bytes, offset)?),
            (_, Some(parent)) => parent.read_file(file - 1, bytes, offset),
        }
    }

    /// Makes a whole block zero without bytes. False when that cannot be.
    fn drop_block(&self, writer: &mut Writer, block: u64) -> Result<bool, IoError> {
        let entry = self.bat.block(block);
        match entry.state() {
            Some(State::Zero) => return Ok(true),
            Some(State::NotPresent) if self.parent.is_none() => return Ok(true),
            Some(State::NotPresent) => self.set(block, Entry::ZERO)?,
            _ if self.metadata.fixed => return Ok(false),
            _ => {
                self.set(block, Entry::ZERO)?;
                self.give_back(writer, block, entry.offset());
            }
        }
        Ok(true)
    }

    fn grow(&self, capacity: u64) -> Result<(), IoError> {
        let old = self.capacity.load(Ordering::Acquire);
        let (from, to) =
            (old.div_ceil(self.metadata.block_size), capacity.div_ceil(self.metadata.block_size));
        if to > self.bat.room(false) {
            return Err(IoError::Unsupported);
        }
        self.zero_behind(old)?;
        for block in from..to {
            self.bat.set(&self.structures, block, Entry::NOT_PRESENT)?;
        }
        self.structures.file.sync()?;
        self.write_capacity(capacity)?;
        self.capacity.store(capacity, Ordering::Release);
        Ok(())
    }

    fn shrink(&self, writer: &mut Writer, capacity: u64) -> Result<(), IoError> {
        let old = self.capacity.swap(capacity, Ordering::AcqRel);
        if let Err(error) = self.write_capacity(capacity) {
            self.capacity.store(old, Ordering::Release);
            return Err(error);
        }
        let (from, to) =
            (capacity.div_ceil(self.metadata.block_size), old.div_ceil(self.metadata.block_size));
        for block in from..to {
            let entry = self.bat.block(block);
            self.bat.set(&self.structures, block, Entry::NOT_PRESENT)?;
            if entry.state() == Some(State::Present) {
                self.give_back(writer, block, entry.offset());
            }
        }
        Ok(())
    }

    /// What lies in the last block behind the disk's end becomes zero.
    fn zero_behind(&self, capacity: u64) -> Result<(), IoError> {
        let (block, within) = (capacity / self.metadata.block_size, capacity % self.metadata.block_size);
        let entry = self.bat.block(block);
        if within == 0 || entry.state() != Some(State::Present) {
            return Ok(());
        }
        let (mut at, end) = (entry.offset() + within, entry.offset() + self.metadata.block_size);
        let zeroes = vec![0; COPY as usize];
        while at < end {
            let len = (end - at).min(COPY);
            self.structures.file.write(&zeroes[..len as usize], at)?;
            at += len;
        }
        Ok(())
    }

    fn write_capacity(&self, capacity: u64) -> Result<(), IoError> {
        let at = self.metadata.capacity_at;
        if at % SECTOR as u64 > SECTOR as u64 - 8 {
            // It crosses sectors, and could be torn.
            return Err(IoError::Unsupported);
        }
        self.structures.file.write(&capacity.to_le_bytes(), at)?;
        Ok(self.structures.file.sync()?)
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
            discard: Some(Discard { granularity: SECTOR as u32, zeroes: true }),
        }
    }

    fn identity(&self) -> &[u8] {
        self.identity_bytes()
    }

    fn files(&self) -> &[Arc<dyn Backend>] {
        &self.files
    }

    fn try_locate(&self, offset: u64, length: u64, extents: &mut Extents) -> Option<Result<(), IoError>> {
        if self.parent.is_some() {
            return None;
        }
        Some(self.locate_from(0, offset, length, extents))
    }

    fn try_allocate(&self, offset: u64, length: u64, extents: &mut Extents) -> Option<Result<(), IoError>> {
        if !self.begun.load(Ordering::Acquire) {
            return None;
        }
        for piece in self.pieces(offset, length) {
            let entry = self.bat.block(piece.block);
            if entry.state() != Some(State::Present) {
                return None;
            }
            extents.push(piece.length, Place::File { file: 0, offset: entry.offset() + piece.within });
        }
        Some(Ok(()))
    }

    fn locate(&self, offset: u64, length: u64, extents: &mut Extents) -> Result<Step, IoError> {
        self.locate_from(0, offset, length, extents)?;
        Ok(Step::Done(length))
    }

    fn allocate(&self, offset: u64, length: u64, extents: &mut Extents) -> Result<Step, IoError> {
        let mut writer = self.lock();
        self.begin(&mut writer)?;
        for piece in self.pieces(offset, length) {
            let block = self.materialize(&mut writer, piece.block)?;
            extents.push(piece.length, Place::File { file: 0, offset: block + piece.within });
        }
        Ok(Step::Done(length))
    }

    fn clear(&self, offset: u64, length: u64, unmap: bool, extents: &mut Extents) -> Result<Step, IoError> {
        let mut writer = self.lock();
        self.begin(&mut writer)?;
        let capacity = self.capacity.load(Ordering::Acquire);
        let mut done = 0;
        for piece in self.pieces(offset, length).take(MAX_BLOCKS_OF_STEP) {
            let Piece { block, within, length } = piece;
            done += length;
            let begin = block * self.metadata.block_size;
            let whole = within == 0 && begin + length == capacity.min(begin + self.metadata.block_size);
            let state = self.bat.block(block).state();
            let is_zero =
                state == Some(State::Zero) || state == Some(State::NotPresent) && self.parent.is_none();
            if is_zero || whole && unmap && self.drop_block(&mut writer, block)? {
                continue;
            }
            let offset = self.materialize(&mut writer, block)?;
            extents.push(length, Place::File { file: 0, offset: offset + within });
        }
        Ok(Step::Done(done))
    }

    fn is_unflushed(&self) -> bool {
        self.changes.load(Ordering::Acquire) > self.durable.load(Ordering::Acquire)
    }

    fn flushing(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn flushed(&self, token: u64) {
        self.durable.fetch_max(token, Ordering::AcqRel);
    }

    fn resize(&self, capacity: u64) -> Result<(), IoError> {
        if self.read_only {
            return Err(IoError::ReadOnly);
        }
        // A larger child would need entries of chunks, and what is new to show no parent.
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
