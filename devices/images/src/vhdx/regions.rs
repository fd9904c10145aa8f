//! The region table: the locations of the block allocation table and the metadata.

use zerocopy::FromBytes;

use super::layout::{
    MIB, REGION_BAT, REGION_METADATA, REGION_TABLES, RegionEntry, RegionTableHeader, TABLE_ENTRIES,
    TABLE_SIZE, is_sealed,
};
use super::structures::Structures;
use crate::error::Flaw;

/// A part of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// All regions.
#[derive(Debug)]
pub(super) struct Regions {
    pub(super) bat: Region,
    pub(super) metadata: Region,
    /// Optional regions that this code does not know.
    pub(super) others: Vec<Region>,
}

/// Reads the first sound copy of the table.
pub(super) fn read(structures: &Structures) -> Result<Regions, Flaw> {
    let mut bytes = vec![0; TABLE_SIZE];
    for offset in REGION_TABLES {
        structures.read(&mut bytes, offset)?;
        if bytes.starts_with(b"regi") && is_sealed(&bytes) {
            return parse(&bytes, structures.length);
        }
    }
    Err(Flaw::damaged("neither copy of its region table has a correct checksum"))
}

fn parse(bytes: &[u8], file: u64) -> Result<Regions, Flaw> {
    let Ok((header, rest)) = RegionTableHeader::read_from_prefix(bytes) else {
        return Err(Flaw::damaged("its region table is too short"));
    };
    let count = header.entries.get() as usize;
    if count > TABLE_ENTRIES {
        return Err(Flaw::damaged(format!("its region table claims {count} entries")));
    }
    let (mut bat, mut metadata, mut others) = (None, None, Vec::new());
    for bytes in rest.chunks_exact(size_of::<RegionEntry>()).take(count) {
        let Ok(entry) = RegionEntry::read_from_bytes(bytes) else { break };
        let region = Region { offset: entry.offset.get(), length: entry.length.get().into() };
        let end = region.offset.checked_add(region.length);
        if region.offset < MIB
            || !region.offset.is_multiple_of(MIB)
            || region.length == 0
            || !region.length.is_multiple_of(MIB)
            || end.is_none_or(|end| end > file)
        {
            let Region { offset, length } = region;
            return Err(Flaw::damaged(format!(
                "its region {} ({length} bytes at {offset}) does not lie in the file",
                entry.id
            )));
        }
        let place = match entry.id {
            REGION_BAT => &mut bat,
            REGION_METADATA => &mut metadata,
            _ if entry.flags.get() & 1 != 0 => {
                let reason = format!("it needs a region of an unknown kind ({})", entry.id);
                return Err(Flaw::unsupported(reason, "convert it with the program that made it"));
            }
            _ => {
                others.push(region);
                continue;
            }
        };
        if place.replace(region).is_some() {
            return Err(Flaw::damaged(format!("it has two regions {}", entry.id)));
        }
    }
    match (bat, metadata) {
        (Some(bat), Some(metadata)) => Ok(Regions { bat, metadata, others }),
        (None, _) => Err(Flaw::damaged("it has no block allocation table")),
        (_, None) => Err(Flaw::damaged("it has no metadata")),
    }
}
