//! The configuration blob: entries of {u32 type, u32 length with these 8 bytes, content}, each a
//! multiple of 8 bytes (spec firmware-windows section A4).

mod content;
mod entry_type;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use content::{ConfigFlags, MemoryRange, MmioWindow, ProcessorCounts};
pub use entry_type::{EntryType, SmbiosText};
pub use reader::{BlobReader, Entry};
pub use writer::BlobWriter;

const HEADER: usize = 8;
/// Most bytes of a blob that is written or read. The firmware's own use is below 1 MiB.
const MAX_BYTES: usize = 1 << 20;

/// A blob that the firmware would stop at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// A mandatory entry is absent.
    #[error("entry {0:?} is mandatory")]
    Missing(EntryType),
    /// A length is below the header's, no multiple of 8, or reaches beyond the blob.
    #[error("the entry at offset {0} has an invalid length")]
    Length(usize),
    /// The first entry is not the count, or the count or the total differs from the entries.
    #[error("the entry count is wrong")]
    Count,
    /// Content of a size or form that its type does not allow.
    #[error("entry {0:?} has an invalid content")]
    Content(EntryType),
    /// More than 1 MiB.
    #[error("more than 1 MiB of configuration")]
    TooLarge,
}
