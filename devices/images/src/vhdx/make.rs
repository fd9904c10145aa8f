//! New VHDX files.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use synthvm_block::BlockSize;
use vmbus_protocol::Guid;
use zerocopy::IntoBytes;

use super::layout::{
    CHUNK_SECTORS, DISK_ID, DISK_SIZE, FILE_PARAMETERS, HEADER_SIZE, HEADERS, Header,
    LOGICAL_SECTOR, MIB, MetadataEntry, MetadataHeader, NO_GUID, PARENT_LOCATOR, PHYSICAL_SECTOR,
    REGION_BAT, REGION_METADATA, REGION_TABLES, RegionEntry, RegionTableHeader, SIGNATURE,
    TABLE_SIZE, seal,
};
use super::{Vhdx, bat, locator};
use crate::OpenOptions;
use crate::error::OpenError;
use crate::file::lock;
use crate::guid::new_guid;

const LOG: u64 = MIB;
const METADATA: u64 = 2 * MIB;
const BAT: u64 = 3 * MIB;

/// Properties of a new file.
#[derive(Debug)]
pub(crate) struct Make {
    /// Bytes of the disk.
    pub(crate) capacity: u64,
    /// Bytes of a block: a power of two from 1 MiB to 256 MiB.
    pub(crate) block_size: u64,
    pub(crate) sector: BlockSize,
    /// All blocks are allocated from the beginning.
    pub(crate) fixed: bool,
    pub(crate) parent: Option<Parent>,
}

/// The parent of a new file.
#[derive(Debug)]
pub(crate) struct Parent {
    linkage: Guid,
    relative: PathBuf,
    absolute: PathBuf,
    /// The parent's own capacity.
    pub(crate) capacity: u64,
    pub(crate) sector: BlockSize,
}

impl Parent {
    /// Returns the parent for a child that will lie at `child`.
    pub(crate) fn open(parent: &Path, child: &Path) -> Result<Self, OpenError> {
        let open = Vhdx::open(&lock(parent, true)?, &OpenOptions::reading(None))?;
        let absolute = parent.canonicalize().unwrap_or_else(|_| parent.to_owned());
        let folder = child
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        Ok(Self {
            linkage: open.data_id(),
            relative: relative(&absolute, &folder),
            absolute,
            capacity: open.metadata.capacity,
            sector: open.metadata.sector,
        })
    }
}

/// Returns `path` relative to `folder`, both absolute.
fn relative(path: &Path, folder: &Path) -> PathBuf {
    let (path, folder): (Vec<_>, Vec<_>) =
        (path.components().collect(), folder.components().collect());
    let common = path.iter().zip(&folder).take_while(|(a, b)| a == b).count();
    let up = folder[common..].iter().map(|_| Component::ParentDir);
    // Windows writes a path in the same folder with a dot at its beginning.
    let here = (common == folder.len()).then_some(Component::CurDir);
    here.into_iter().chain(up).chain(path[common..].iter().copied()).collect()
}

/// Writes a new VHDX into the empty `file`.
pub(crate) fn make(file: &File, make: &Make) -> io::Result<()> {
    let ratio = CHUNK_SECTORS * u64::from(make.sector.bytes()) / make.block_size;
    let blocks = make.capacity.div_ceil(make.block_size);
    let entries = bat::length(blocks, ratio, make.parent.is_some());
    let bat_length = (entries * 8).next_multiple_of(MIB);
    let data = BAT + bat_length;
    if make.fixed {
        let length = data + blocks * make.block_size;
        let off =
            libc::off_t::try_from(length).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
        // SAFETY: plain integers; the descriptor is open while `file` lives.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, off) } {
            0 => {}
            libc::EOPNOTSUPP | libc::EINVAL => file.set_len(length)?,
            code => return Err(io::Error::from_raw_os_error(code)),
        }
        let table: Vec<u8> = (0..entries)
            .flat_map(|index| {
                let is_bitmap = index % (ratio + 1) == ratio;
                let block = index - index / (ratio + 1);
                let entry = bat::Entry::present(data + block * make.block_size).0;
                if is_bitmap { 0 } else { entry }.to_le_bytes()
            })
            .collect();
        file.write_all_at(&table, BAT)?;
    } else {
        file.set_len(data)?;
    }
    file.write_all_at(&metadata(make)?, METADATA)?;
    let table = region_table(bat_length);
    for offset in REGION_TABLES {
        file.write_all_at(&table, offset)?;
    }
    let (file_write, data_write) = (new_guid()?, new_guid()?);
    for (sequence, offset) in HEADERS.into_iter().enumerate() {
        file.write_all_at(&header(sequence as u64 + 1, file_write, data_write), offset)?;
    }
    // The identifier is written last: without it, the file is no VHDX.
    let mut identifier = [0; 8 + 512];
    identifier[..8].copy_from_slice(SIGNATURE);
    for (target, unit) in identifier[8..].chunks_exact_mut(2).zip("SynthVM".encode_utf16()) {
        target.copy_from_slice(&unit.to_le_bytes());
    }
    file.write_all_at(&identifier, 0)
}

fn header(sequence: u64, file_write: Guid, data_write: Guid) -> [u8; HEADER_SIZE] {
    let header = Header {
        signature: *b"head",
        checksum: 0.into(),
        sequence: sequence.into(),
        file_write,
        data_write,
        log: NO_GUID,
        log_version: 0.into(),
        version: 1.into(),
        log_length: (MIB as u32).into(),
        log_offset: LOG.into(),
    };
    let mut bytes = [0; HEADER_SIZE];
    bytes[..size_of::<Header>()].copy_from_slice(header.as_bytes());
    seal(&mut bytes);
    bytes
}

fn region_table(bat_length: u64) -> Vec<u8> {
    let header = RegionTableHeader {
        signature: *b"regi",
        checksum: 0.into(),
        entries: 2.into(),
        reserved: 0.into(),
    };
    let entry = |id, offset: u64, length: u64| RegionEntry {
        id,
        offset: offset.into(),
        length: (length as u32).into(),
        flags: 1.into(),
    };
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(entry(REGION_BAT, BAT, bat_length).as_bytes());
    bytes.extend(entry(REGION_METADATA, METADATA, MIB).as_bytes());
    bytes.resize(TABLE_SIZE, 0);
    seal(&mut bytes);
    bytes
}

fn metadata(make: &Make) -> io::Result<Vec<u8>> {
    let flags = u32::from(make.fixed) | u32::from(make.parent.is_some()) << 1;
    let parameters = [(make.block_size as u32).to_le_bytes(), flags.to_le_bytes()].concat();
    // Bit 1: a property of the virtual disk; bit 2: the reader must know the item.
    let mut items = vec![
        (FILE_PARAMETERS, 4, parameters),
        (DISK_SIZE, 6, make.capacity.to_le_bytes().to_vec()),
        (DISK_ID, 6, new_guid()?.to_bytes().to_vec()),
        (LOGICAL_SECTOR, 6, make.sector.bytes().to_le_bytes().to_vec()),
        (PHYSICAL_SECTOR, 6, 4096_u32.to_le_bytes().to_vec()),
    ];
    if let Some(parent) = &make.parent {
        items.push((
            PARENT_LOCATOR,
            4,
            locator::build(parent.linkage, &parent.relative, &parent.absolute),
        ));
    }
    let header = MetadataHeader {
        signature: *b"metadata",
        reserved: 0.into(),
        entries: (items.len() as u16).into(),
        reserved2: [0.into(); 5],
    };
    let mut table = header.as_bytes().to_vec();
    let mut values = Vec::new();
    for (id, flags, value) in items {
        let entry = MetadataEntry {
            id,
            offset: ((TABLE_SIZE + values.len()) as u32).into(),
            length: (value.len() as u32).into(),
            flags: flags.into(),
            reserved: 0.into(),
        };
        table.extend(entry.as_bytes());
        values.extend(value);
        // An item crosses a sector only if it is longer than one.
        values.resize(values.len().next_multiple_of(64), 0);
    }
    table.resize(TABLE_SIZE, 0);
    table.extend(values);
    table.resize(MIB as usize, 0);
    Ok(table)
}
