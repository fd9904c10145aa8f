//! The blocks of a dynamic VHD.

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::footer::sum_without;
use crate::error::Flaw;
use crate::file::ImageFile;
use crate::mapped::{Extents, Location};

/// Most blocks: 2 TiB, the format's largest disk, in blocks of 512 KiB.
const MAX_BLOCKS: u64 = 1 << 22;
/// The entry of a block without data.
const ABSENT: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    cookie: [u8; 8],
    data_offset: U64,
    table_offset: U64,
    version: U32,
    entries: U32,
    block_size: U32,
    checksum: U32,
}

const HEADER_SIZE: usize = 1024;

/// The locations of the blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    /// The sector of each block's bitmap. The block follows its bitmap.
    table: Vec<u32>,
    block_size: u64,
    /// Bytes of a block's bitmap, in whole sectors.
    bitmap: u64,
}

impl Blocks {
    /// Reads the table of a disk of `capacity` bytes in a file whose footer lies at `end`.
    pub(super) fn read(
        file: &ImageFile,
        header: u64,
        capacity: u64,
        end: u64,
    ) -> Result<Self, Flaw> {
        let mut bytes = [0; HEADER_SIZE];
        if header.checked_add(HEADER_SIZE as u64).is_none_or(|last| last > end) {
            return Err(Flaw::damaged(format!(
                "its dynamic header at {header} does not lie in the file"
            )));
        }
        file.read(&mut bytes, header)?;
        let found = Header::read_from_prefix(&bytes).ok().map(|(header, _)| header);
        let Some(found) = found.filter(|header| &header.cookie == b"cxsparse") else {
            return Err(Flaw::damaged("its dynamic header has no signature"));
        };
        if found.checksum.get() != sum_without(&bytes, std::mem::offset_of!(Header, checksum)) {
            return Err(Flaw::damaged("the checksum of its dynamic header is wrong"));
        }
        let block_size = u64::from(found.block_size.get());
        if !block_size.is_power_of_two() || !(4096..=256 << 20).contains(&block_size) {
            return Err(Flaw::damaged(format!("its blocks have {block_size} bytes")));
        }
        let blocks = capacity.div_ceil(block_size);
        let (begin, bytes) = (found.table_offset.get(), blocks * 4);
        if blocks > u64::from(found.entries.get())
            || blocks > MAX_BLOCKS
            || begin.checked_add(bytes).is_none_or(|last| last > end)
        {
            return Err(Flaw::damaged(format!(
                "its table of {blocks} blocks at {begin} does not lie in the file"
            )));
        }
        let mut table = vec![0; bytes as usize];
        file.read(&mut table, begin)?;
        let table: Vec<u32> = table
            .chunks_exact(4)
            .map(|bytes| u32::from_be_bytes(std::array::from_fn(|i| bytes[i])))
            .collect();
        let bitmap = (block_size / 512).div_ceil(8).next_multiple_of(512);
        for (block, &sector) in table.iter().enumerate().filter(|&(_, &sector)| sector != ABSENT) {
            let at = u64::from(sector) * 512;
            // The end of the disk may cut the last block short.
            let used = block_size.min(capacity - block as u64 * block_size);
            if at + bitmap + used > end {
                return Err(Flaw::damaged(format!(
                    "its block {block} at {at} lies beyond the file's end"
                )));
            }
        }
        Ok(Self { table, block_size, bitmap })
    }

    pub(super) fn block_size(&self) -> u64 {
        self.block_size
    }

    /// Adds the locations of the bytes. A block with data has all of its data in the file: sectors
    /// that its bitmap excludes read as zero there, too.
    pub(super) fn locate(&self, mut offset: u64, length: u64, extents: &mut Extents) {
        let end = offset + length;
        while offset < end {
            let (block, within) = (offset / self.block_size, offset % self.block_size);
            let length = (end - offset).min(self.block_size - within);
            let location = match self.table[block as usize] {
                ABSENT => Location::Zero,
                sector => {
                    let offset = u64::from(sector) * 512 + self.bitmap + within;
                    Location::File { file: 0, offset }
                }
            };
            extents.push(length, location);
            offset += length;
        }
    }
}
