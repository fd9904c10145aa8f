//! The lookup of the locations of the disk's bytes in the files of the chain.

use std::sync::atomic::Ordering;

use synthvm_block::IoError;

use super::Vhdx;
use super::bat::{Entry, State};
use crate::mapped::{Extents, Location};

/// A part of a block.
pub(super) struct Piece {
    pub(super) block: u64,
    /// Offset from the block's beginning.
    pub(super) within: u64,
    pub(super) length: u64,
}

/// Whether a lookup may read the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Allowed,
    /// The lookup ends with [`Stop::Reading`] if it would have to read.
    Forbidden,
}

/// A reason why a lookup ends early.
#[derive(Debug)]
pub(super) enum Stop {
    Reading,
    Failed(IoError),
}

impl Vhdx {
    /// Returns the range in parts, none of which crosses the end of a block.
    pub(super) fn pieces(&self, offset: u64, length: u64) -> impl Iterator<Item = Piece> + use<> {
        let size = self.metadata.block_size;
        let (mut at, end) = (offset, offset + length);
        std::iter::from_fn(move || {
            let (block, within) = (at / size, at % size);
            let length = (end - at).min(size - within);
            at += length;
            (length != 0).then_some(Piece { block, within, length })
        })
    }

    /// Adds the locations of the bytes of `image`, the file number `file` of a chain. Without an
    /// image, which is the parent of the last one, they are zeroes.
    pub(super) fn locate_in(
        image: Option<&Self>,
        file: usize,
        offset: u64,
        length: u64,
        reading: Reading,
        extents: &mut Extents,
    ) -> Result<(), Stop> {
        let Some(image) = image else {
            extents.push(length, Location::Zero);
            return Ok(());
        };
        // A child may be larger than its parent.
        let there = image.capacity.load(Ordering::Acquire).saturating_sub(offset).min(length);
        for piece in image.pieces(offset, there) {
            let Piece { block, within, length } = piece;
            let entry = image.bat.block(block);
            match entry.state() {
                Some(State::Present) => {
                    image.push_here(file, entry.offset() + within, length, extents);
                }
                Some(State::NotPresent) => {
                    let offset = block * image.metadata.block_size + within;
                    let parent = image.parent.as_deref();
                    Self::locate_in(parent, file + 1, offset, length, reading, extents)?;
                }
                Some(State::Partial) if reading == Reading::Forbidden => return Err(Stop::Reading),
                Some(State::Partial) => image.locate_sectors(file, entry, &piece, extents)?,
                Some(State::Zero) | None => extents.push(length, Location::Zero),
            }
        }
        extents.push(length - there, Location::Zero);
        Ok(())
    }

    /// Returns whether the bytes read as zero without data in any file.
    pub(super) fn reads_as_zero(&self, offset: u64, length: u64) -> bool {
        let mut extents = Extents::default();
        Self::locate_in(Some(self), 0, offset, length, Reading::Forbidden, &mut extents).is_ok()
            && extents.as_slice().iter().all(|extent| matches!(extent.location, Location::Zero))
    }

    /// Adds bytes that lie in this file.
    fn push_here(&self, file: usize, offset: u64, length: u64, extents: &mut Extents) {
        let there = self.structures.there(offset, length);
        extents.push(there, Location::File { file, offset });
        extents.push(length - there, Location::Zero);
    }

    /// Adds sectors by the bitmap. A set bit: the sector is in this file. A clear bit: the sector
    /// is the parent's.
    fn locate_sectors(
        &self,
        file: usize,
        entry: Entry,
        piece: &Piece,
        extents: &mut Extents,
    ) -> Result<(), Stop> {
        let sector = u64::from(self.metadata.sector.bytes());
        let per_block = self.metadata.block_size / sector;
        let base = piece.block % self.metadata.chunk_ratio() * per_block;
        let (first, last) = (piece.within / sector, (piece.within + piece.length).div_ceil(sector));
        let begin = (base + first) / 8;
        let mut bits = vec![0; ((base + last).div_ceil(8) - begin) as usize];
        self.structures
            .read(&mut bits, self.bat.bitmap(piece.block).offset() + begin)
            .map_err(|error| Stop::Failed(error.into()))?;
        let block = piece.block * self.metadata.block_size;
        for index in first..last {
            let bit = base + index - begin * 8;
            let from = (index * sector).max(piece.within);
            let length = ((index + 1) * sector).min(piece.within + piece.length) - from;
            if bits[(bit / 8) as usize] >> (bit % 8) & 1 != 0 {
                self.push_here(file, entry.offset() + from, length, extents);
            } else {
                let (parent, offset) = (self.parent.as_deref(), block + from);
                Self::locate_in(parent, file + 1, offset, length, Reading::Allowed, extents)?;
            }
        }
        Ok(())
    }

    /// Reads from one of the chain's files.
    pub(super) fn read_file(
        &self,
        file: usize,
        bytes: &mut [u8],
        offset: u64,
    ) -> Result<(), IoError> {
        match (file, &self.parent) {
            (0, _) | (_, None) => Ok(self.structures.file.read(bytes, offset)?),
            (_, Some(parent)) => parent.read_file(file - 1, bytes, offset),
        }
    }
}

impl From<Stop> for IoError {
    fn from(stop: Stop) -> Self {
        match stop {
            // This happens only if reading is forbidden.
            Stop::Reading => Self::Os(libc::EAGAIN),
            Stop::Failed(error) => error,
        }
    }
}
