//! New images.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use zerocopy::IntoBytes;

use super::layout::{EXTENSION_BACKING_FORMAT, HEADER_V3, Layout, MAGIC, MAX_L1, RawHeader};

/// Log2 of the bits of a reference count of a new image.
const COUNT_ORDER: u32 = 4;

/// Largest first-level table of a new image.
pub(crate) const MAX_L1_BYTES: u64 = MAX_L1;

/// Returns the bytes of the first-level table of a disk of `size` bytes in clusters of `cluster`
/// bytes, a power of two.
pub(crate) fn l1_bytes(size: u64, cluster: u64) -> u64 {
    layout(cluster).l1_entries(size) * 8
}

fn layout(cluster: u64) -> Layout {
    Layout { bits: cluster.trailing_zeros(), version: 3, extended: false, external: false }
}

/// Writes an empty image of version 3 into the empty `file`. `cluster`: bytes, a power of two from
/// 512 to 2 MiB. `backing`: the names of the backing file (relative to the image) and of its
/// format.
///
/// # Errors
/// The system's, or the name does not fit the first cluster.
pub(crate) fn make(
    file: &File,
    size: u64,
    cluster: u64,
    backing: Option<&(String, String)>,
) -> io::Result<()> {
    let layout = layout(cluster);
    let l1_entries = layout.l1_entries(size);
    // Header, first-level table, reference count table, its blocks.
    let l1_clusters = layout.clusters(l1_entries * 8);
    let per_block = (cluster * 8) >> COUNT_ORDER;
    let (mut blocks, mut table) = (0, 0);
    loop {
        let clusters = 1 + l1_clusters + table + blocks;
        let needed =
            (clusters.div_ceil(per_block), layout.clusters(clusters.div_ceil(per_block) * 8));
        if needed == (blocks, table) {
            break;
        }
        (blocks, table) = needed;
    }
    let (table_at, blocks_at) = (1 + l1_clusters, 1 + l1_clusters + table);
    let clusters = blocks_at + blocks;
    file.set_len(clusters << layout.bits)?;
    let offsets = (0..blocks).flat_map(|block| ((blocks_at + block) << layout.bits).to_be_bytes());
    file.write_all_at(&offsets.collect::<Vec<u8>>(), table_at << layout.bits)?;
    let counts = 1_u16.to_be_bytes().repeat(clusters as usize);
    file.write_all_at(&counts, blocks_at << layout.bits)?;
    let mut header = RawHeader {
        magic: *MAGIC,
        version: 3.into(),
        backing_offset: 0.into(),
        backing_length: 0.into(),
        cluster_bits: layout.bits.into(),
        size: size.into(),
        encryption: 0.into(),
        l1_entries: (l1_entries as u32).into(),
        l1_offset: cluster.into(),
        counts_offset: (table_at << layout.bits).into(),
        counts_clusters: (table as u32).into(),
        snapshots: 0.into(),
        snapshots_offset: 0.into(),
        incompatible: 0.into(),
        compatible: 0.into(),
        autoclear: 0.into(),
        count_order: COUNT_ORDER.into(),
        header_length: HEADER_V3.into(),
    };
    let mut names = Vec::new();
    if let Some((name, format)) = backing {
        names.extend(EXTENSION_BACKING_FORMAT.to_be_bytes());
        names.extend((format.len() as u32).to_be_bytes());
        names.extend(format.as_bytes());
        // The names are padded and followed by an empty extension.
        names.resize(names.len().next_multiple_of(8) + 8, 0);
        header.backing_offset = (u64::from(HEADER_V3) + names.len() as u64).into();
        header.backing_length = (name.len() as u32).into();
        names.extend(name.as_bytes());
    }
    let first = [header.as_bytes(), &names].concat();
    if first.len() as u64 > cluster || backing.is_some_and(|(name, _)| name.len() > 1023) {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    // The first cluster is written last: without it, the file is no image.
    file.write_all_at(&first, 0)
}
