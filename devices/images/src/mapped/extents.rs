//! Locations of parts of the disk.

use std::sync::Arc;

/// A part of the disk and its location.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// Bytes; at least one.
    pub(crate) length: u64,
    /// Its location.
    pub(crate) location: Location,
}

/// The location of bytes.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "the format that needs memory follows")]
pub(crate) enum Location {
    /// The bytes lie in [`super::Map::files`]`[file]` from `offset` on.
    File {
        /// Index of the file.
        file: usize,
        /// First byte.
        offset: u64,
    },
    /// The bytes lie in no file and read as zero.
    Zero,
    /// The bytes lie in memory, read-only. The lookup has produced them, for example from a
    /// compressed cluster. They are copied to the guest and counted as copied.
    Memory {
        /// The produced bytes.
        bytes: Arc<[u8]>,
        /// Offset of the first byte in `bytes`, which holds all of the extent.
        offset: usize,
    },
}

/// The location of a run of bytes in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InFile {
    /// Index into [`super::Map::files`].
    pub(crate) file: usize,
    /// First byte.
    pub(crate) offset: u64,
}

/// Extents in order, neighbours merged.
#[derive(Debug, Default)]
pub(crate) struct Extents(Vec<Extent>);

impl Extents {
    /// Adds an extent at the end.
    pub(crate) fn push(&mut self, length: u64, location: Location) {
        if length == 0 {
            return;
        }
        if let Some(last) = self.0.last_mut()
            && location.follows(&last.location, last.length)
        {
            last.length += length;
            return;
        }
        self.0.push(Extent { length, location });
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn as_slice(&self) -> &[Extent] {
        &self.0
    }
}

impl Location {
    /// Returns whether this location begins at the end of `length` bytes at `before`.
    fn follows(&self, before: &Self, length: u64) -> bool {
        match (before, self) {
            (Self::Zero, Self::Zero) => true,
            (Self::File { file: a, offset: at }, Self::File { file: b, offset }) => {
                a == b && at + length == *offset
            }
            (Self::Memory { bytes: a, offset: at }, Self::Memory { bytes: b, offset }) => {
                Arc::ptr_eq(a, b) && *at as u64 + length == *offset as u64
            }
            _ => false,
        }
    }
}
