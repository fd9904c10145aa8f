//! Changes of the disk's size.

use std::sync::atomic::Ordering;

use synthvm_block::IoError;

use super::bat::{Entry, State};
use super::{Vhdx, Writer};

/// Zeroes that are written by one call.
const ZEROES: u64 = 1 << 20;

/// The unit that every storage device writes entirely, or not at all.
const ATOMIC: u64 = 512;

impl Vhdx {
    pub(super) fn grow(&self, capacity: u64) -> Result<(), IoError> {
        let old = self.capacity.load(Ordering::Acquire);
        let (from, to) =
            (old.div_ceil(self.metadata.block_size), capacity.div_ceil(self.metadata.block_size));
        if to > self.bat.room(false) {
            return Err(IoError::Unsupported);
        }
        self.zero_behind(old)?;
        for block in (from..to).filter(|&block| self.bat.block(block) != Entry::NOT_PRESENT) {
            self.set(block, Entry::NOT_PRESENT)?;
        }
        self.structures.file.sync()?;
        self.write_capacity(capacity)?;
        self.capacity.store(capacity, Ordering::Release);
        Ok(())
    }

    pub(super) fn shrink(&self, writer: &mut Writer, capacity: u64) -> Result<(), IoError> {
        let old = self.capacity.swap(capacity, Ordering::AcqRel);
        if let Err(error) = self.write_capacity(capacity) {
            self.capacity.store(old, Ordering::Release);
            return Err(error);
        }
        let (from, to) =
            (capacity.div_ceil(self.metadata.block_size), old.div_ceil(self.metadata.block_size));
        for block in (from..to).filter(|&block| self.bat.block(block) != Entry::NOT_PRESENT) {
            let entry = self.bat.block(block);
            self.set(block, Entry::NOT_PRESENT)?;
            if entry.state() == Some(State::Present) {
                self.give_back(writer, block, entry.offset());
            }
        }
        Ok(())
    }

    /// Zeroes the part of the last block that lies behind the disk's end.
    fn zero_behind(&self, capacity: u64) -> Result<(), IoError> {
        let (block, within) =
            (capacity / self.metadata.block_size, capacity % self.metadata.block_size);
        let entry = self.bat.block(block);
        if within == 0 || entry.state() != Some(State::Present) {
            return Ok(());
        }
        let (mut at, end) = (entry.offset() + within, entry.offset() + self.metadata.block_size);
        let zeroes = vec![0; ZEROES as usize];
        while at < end {
            let len = (end - at).min(ZEROES);
            self.structures.file.write(&zeroes[..len as usize], at)?;
            at += len;
        }
        Ok(())
    }

    fn write_capacity(&self, capacity: u64) -> Result<(), IoError> {
        let at = self.metadata.capacity_at;
        if can_be_torn(at) {
            return Err(IoError::Unsupported);
        }
        self.structures.file.write(&capacity.to_le_bytes(), at)?;
        Ok(self.structures.file.sync()?)
    }
}

/// Returns whether a loss of power may leave a part of the 8 bytes at `offset` written. A metadata
/// item has no alignment ([MS-VHDX] 2.6.1.2), so images of other programs may have it anywhere.
fn can_be_torn(offset: u64) -> bool {
    offset % ATOMIC > ATOMIC - size_of::<u64>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_capacity_that_crosses_a_512_byte_sector_can_be_torn() {
        for whole in [0, 504, 512, 65_536 + 1016] {
            assert!(!can_be_torn(whole), "{whole}");
        }
        for torn in [505, 511, 1017, 65_536 + 4089] {
            assert!(can_be_torn(torn), "{torn}");
        }
    }
}
