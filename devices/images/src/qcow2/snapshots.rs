//! Internal snapshots: the locations of their first-level tables.

use zerocopy::FromBytes;

use super::header::Header;
use super::layout::{MAX_L1, RawSnapshot};
use crate::error::Flaw;
use crate::file::ImageFile;

/// Most snapshots, as in QEMU.
const MAX_SNAPSHOTS: u32 = 65_536;
/// Most bytes of an entry's extra data, so that the length of an entry is bounded.
const MAX_EXTRA: u32 = 1 << 20;

/// The tables of an image's internal snapshots.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// Offset and entries of each first-level table.
    pub(super) tables: Vec<(u64, u64)>,
    /// Bytes of the table of snapshots.
    pub(super) length: u64,
}

impl Snapshots {
    /// Reads the table of snapshots.
    pub(super) fn read(file: &ImageFile, header: &Header) -> Result<Self, Flaw> {
        if header.snapshots > MAX_SNAPSHOTS {
            return Err(Flaw::damaged(format!("it has {} snapshots", header.snapshots)));
        }
        let mut snapshots = Self::default();
        for number in 0..header.snapshots {
            let at = header.snapshots_offset.checked_add(snapshots.length);
            let at = at.ok_or_else(|| Flaw::damaged("its snapshots do not lie in the file"))?;
            let mut bytes = [0; size_of::<RawSnapshot>()];
            file.read(&mut bytes, at)?;
            let raw = RawSnapshot::read_from_bytes(&bytes)
                .map_err(|_| Flaw::damaged("a snapshot is cut off"))?;
            let (offset, entries) = (raw.l1_offset.get(), u64::from(raw.l1_entries.get()));
            let end = offset.checked_add(entries * 8).filter(|&end| end <= file.len().unwrap_or(0));
            if end.is_none()
                || entries * 8 > MAX_L1
                || !offset.is_multiple_of(header.layout.cluster())
            {
                return Err(Flaw::damaged(format!(
                    "the table of snapshot {number} does not lie in the file"
                )));
            }
            if raw.extra_length.get() > MAX_EXTRA {
                return Err(Flaw::damaged(format!(
                    "snapshot {number} has {} bytes of extra data",
                    raw.extra_length
                )));
            }
            snapshots.tables.push((offset, entries));
            let length = bytes.len() as u64
                + u64::from(raw.extra_length.get())
                + u64::from(raw.id_length.get())
                + u64::from(raw.name_length.get());
            snapshots.length += length.next_multiple_of(8);
        }
        Ok(snapshots)
    }
}
