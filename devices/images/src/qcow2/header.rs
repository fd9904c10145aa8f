//! What a qcow2 image says of its sizes, judged before the library takes it at its word.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::error::Flaw;

/// Largest first-level table, as QEMU has it: 2 EiB in clusters of 2 MiB, 128 GiB in the smallest.
const MAX_TABLE: u64 = 32 << 20;

/// An incompatible feature: entries of second-level tables have twice the size.
const EXTENDED_ENTRIES: u64 = 1 << 4;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    version: U32,
    backing_offset: U64,
    backing_length: U32,
    cluster_bits: U32,
    size: U64,
    encryption: U32,
    table_entries: U32,
    table_offset: U64,
    counts_offset: U64,
    counts_clusters: U32,
    snapshots: U32,
    snapshots_offset: U64,
    /// From version 3 on.
    incompatible: U64,
    compatible: U64,
    autoclear: U64,
    /// Log2 of the bits of a reference count; 4 in version 2.
    count_order: U32,
}

/// Most of it that is judged; what one table that is read at once has.
const MAX_COUNTS: u64 = 8 << 20;

/// Refuses a disk that its own tables do not reach, and tables that do not lie in the file: walks over the disk and memory for tables are
/// bounded by what is really there. And, where it is to be written, a file that has parts without reference counts: looking for
/// room there, the library (imago 0.2.6) calls itself until the stack is full, which nothing can contain.
pub(super) fn check(path: &Path, read_only: bool) -> Result<(), Flaw> {
    let file = File::open(path)?;
    let mut bytes = [0; size_of::<Header>()];
    // A header of version 2 may be all that there is.
    if let Err(error) = file.read_exact_at(&mut bytes, 0)
        && error.kind() != io::ErrorKind::UnexpectedEof
    {
        return Err(error.into());
    }
    let Ok(header) = Header::read_from_bytes(&bytes) else { return Ok(()) };
    let cluster_bits = header.cluster_bits.get();
    // These the library words.
    if &header.magic != b"QFI\xFB" || !(9..=21).contains(&cluster_bits) {
        return Ok(());
    }
    let length = file.metadata()?.len();
    let lies_in_file = |what: &str, offset: u64, bytes: u64| match offset.checked_add(bytes) {
        Some(end) if end <= length => Ok(()),
        _ => Err(Flaw::damaged(format!("its {what} ({bytes} bytes at {offset}) does not lie in the file"))),
    };
    let is_extended = header.version.get() >= 3 && header.incompatible.get() & EXTENDED_ENTRIES != 0;
    let reach_bits = 2 * cluster_bits - if is_extended { 4 } else { 3 };
    let (entries, size) = (u64::from(header.table_entries.get()), header.size.get());
    if entries < size.div_ceil(1 << reach_bits) {
        return Err(Flaw::damaged(format!(
            "its disk has {size} bytes, its table has {entries} entries for {} bytes each",
            1_u64 << reach_bits
        )));
    }
    if entries * 8 > MAX_TABLE {
        return Err(Flaw::unsupported(
            format!("its table has {entries} entries, and {} are the most", MAX_TABLE / 8),
            "convert it to larger clusters with: qemu-img convert -o cluster_size=2M",
        ));
    }
    lies_in_file("first-level table", header.table_offset.get(), entries * 8)?;
    let counts = u64::from(header.counts_clusters.get()) << cluster_bits;
    lies_in_file("reference count table", header.counts_offset.get(), counts)?;
    if read_only {
        return Ok(());
    }
    let order = if header.version.get() >= 3 { header.count_order.get() } else { 4 };
    // The library words what is no order.
    let Some(covered) = (cluster_bits + 3).checked_sub(order).filter(|_| order <= 6) else { return Ok(()) };
    let needed = length.div_ceil(1 << cluster_bits).div_ceil(1 << covered) * 8;
    if needed > counts.min(MAX_COUNTS) {
        return Err(unsound(format!("its reference counts need {needed} bytes of tables, it has {counts}")));
    }
    let mut table = vec![0; needed as usize];
    file.read_exact_at(&mut table, header.counts_offset.get())?;
    for (index, entry) in table.chunks_exact(8).enumerate() {
        let offset = u64::from_be_bytes(std::array::from_fn(|at| entry[at]));
        let is_aligned = offset.is_multiple_of(1 << cluster_bits);
        if offset == 0 || !is_aligned || offset.checked_add(1 << cluster_bits).is_none_or(|end| end > length)
        {
            return Err(unsound(format!("its block {index} of reference counts is not there ({offset})")));
        }
    }
    Ok(())
}

fn unsound(reason: String) -> Flaw {
    Flaw::unsupported(reason, "it can be read with readonly=on; repair it with: qemu-img check -r all")
}
