//! Metadata: the properties of the virtual disk.

use synthvm_block::BlockSize;
use vmbus_protocol::Guid;
use zerocopy::FromBytes;

use super::layout::{
    CHUNK_SECTORS, DISK_ID, DISK_SIZE, FILE_PARAMETERS, LOGICAL_SECTOR, MAX_CAPACITY, MIB,
    MetadataEntry, MetadataHeader, PARENT_LOCATOR, PHYSICAL_SECTOR, TABLE_ENTRIES, TABLE_SIZE,
};
use super::locator::{self, Locator};
use super::regions::Region;
use super::structures::Structures;
use crate::error::Flaw;

/// Largest item.
const MAX_ITEM: u32 = 1 << 20;

/// Properties of the virtual disk.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    pub(super) capacity: u64,
    /// The offset of the capacity in the file.
    pub(super) capacity_at: u64,
    pub(super) block_size: u64,
    /// Whether all blocks stay allocated: a fixed image.
    pub(super) fixed: bool,
    pub(super) sector: BlockSize,
    pub(super) physical_sector: u32,
    pub(super) disk_id: Guid,
    pub(super) parent: Option<Locator>,
}

impl Metadata {
    /// Returns the block that the byte at `offset` lies in, and the byte's offset in the block.
    pub(super) fn split(&self, offset: u64) -> (u64, u64) {
        // Blocks are powers of two.
        (offset >> self.block_size.trailing_zeros(), offset & (self.block_size - 1))
    }

    /// Returns the number of blocks of a chunk, which share a block of the sector bitmap.
    pub(super) fn chunk_ratio(&self) -> u64 {
        CHUNK_SECTORS * u64::from(self.sector.bytes()) / self.block_size
    }
}

/// Reads the metadata region.
pub(super) fn read(structures: &Structures, region: Region) -> Result<Metadata, Flaw> {
    let mut table = vec![0; TABLE_SIZE];
    structures.read(&mut table, region.offset)?;
    let items = parse_table(&table, region)?;
    let find = |id: Guid| items.iter().find(|item| item.id == id);
    let load = |id: Guid, what: &str, length: usize| -> Result<(Vec<u8>, u64), Flaw> {
        let item = find(id).ok_or_else(|| Flaw::damaged(format!("its metadata lacks {what}")))?;
        if (item.length.get() as usize) < length {
            return Err(Flaw::damaged(format!("its metadata has {what} of {} bytes", item.length)));
        }
        let offset = region.offset + u64::from(item.offset.get());
        let mut bytes = vec![0; item.length.get() as usize];
        structures.read(&mut bytes, offset)?;
        Ok((bytes, offset))
    };
    let number =
        |bytes: &[u8], at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));

    let (parameters, _) = load(FILE_PARAMETERS, "the file's parameters", 8)?;
    let (block_size, flags) = (number(&parameters, 0), number(&parameters, 4));
    if !block_size.is_power_of_two() || !(MIB as u32..=256 << 20).contains(&block_size) {
        return Err(Flaw::damaged(format!("its blocks have {block_size} bytes")));
    }
    let (sector, _) = load(LOGICAL_SECTOR, "the sector size", 4)?;
    let sector = match number(&sector, 0) {
        512 => BlockSize::B512,
        4096 => BlockSize::B4096,
        other => return Err(Flaw::damaged(format!("its sectors have {other} bytes"))),
    };
    let physical_sector = match find(PHYSICAL_SECTOR) {
        None => 4096,
        Some(_) => number(&load(PHYSICAL_SECTOR, "the physical sector size", 4)?.0, 0),
    };
    if !matches!(physical_sector, 512 | 4096) {
        return Err(Flaw::damaged(format!("its physical sectors have {physical_sector} bytes")));
    }
    let (capacity, capacity_at) = load(DISK_SIZE, "the disk's size", 8)?;
    let capacity = u64::from_le_bytes(std::array::from_fn(|i| capacity[i]));
    if capacity == 0 || capacity > MAX_CAPACITY || !capacity.is_multiple_of(sector.bytes().into()) {
        return Err(Flaw::damaged(format!("its disk has {capacity} bytes")));
    }
    let disk_id = match find(DISK_ID) {
        None => super::layout::NO_GUID,
        Some(_) => Guid::from_bytes(std::array::from_fn({
            let (bytes, _) = load(DISK_ID, "the disk's id", 16)?;
            move |i| bytes[i]
        })),
    };
    let parent = match flags & 2 {
        0 => None,
        _ => Some(locator::parse(&load(PARENT_LOCATOR, "the location of its parent", 20)?.0)?),
    };
    Ok(Metadata {
        capacity,
        capacity_at,
        block_size: block_size.into(),
        fixed: flags & 1 != 0,
        sector,
        physical_sector,
        disk_id,
        parent,
    })
}

fn parse_table(table: &[u8], region: Region) -> Result<Vec<MetadataEntry>, Flaw> {
    let header = MetadataHeader::read_from_prefix(table);
    let Some((header, rest)) = header.ok().filter(|(header, _)| &header.signature == b"metadata")
    else {
        return Err(Flaw::damaged("its metadata has no signature"));
    };
    let count = usize::from(header.entries.get());
    if count > TABLE_ENTRIES {
        return Err(Flaw::damaged(format!("its metadata claims {count} items")));
    }
    let known =
        [FILE_PARAMETERS, DISK_SIZE, DISK_ID, LOGICAL_SECTOR, PHYSICAL_SECTOR, PARENT_LOCATOR];
    let mut items: Vec<MetadataEntry> = Vec::with_capacity(count);
    for bytes in rest.chunks_exact(size_of::<MetadataEntry>()).take(count) {
        let Ok(item) = MetadataEntry::read_from_bytes(bytes) else { break };
        // The user's own items have no meaning for this code.
        let is_ours = item.flags.get() & 1 == 0 && known.contains(&item.id);
        if !is_ours {
            if item.flags.get() & 4 != 0 {
                let reason = format!("it needs metadata of an unknown kind ({})", item.id);
                return Err(Flaw::unsupported(reason, "convert it with the program that made it"));
            }
            continue;
        }
        let (offset, length) = (item.offset.get(), item.length.get());
        let end = u64::from(offset) + u64::from(length);
        if length == 0 || length > MAX_ITEM || (offset as usize) < TABLE_SIZE || end > region.length
        {
            return Err(Flaw::damaged(format!(
                "its metadata item {} ({length} bytes at {offset}) does not lie in the region",
                item.id
            )));
        }
        if items.iter().any(|other| other.id == item.id) {
            return Err(Flaw::damaged(format!("it has two metadata items {}", item.id)));
        }
        items.push(item);
    }
    Ok(items)
}
