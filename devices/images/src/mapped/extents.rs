//! Where parts of the disk lie.

use std::sync::Arc;

/// Where a part of the disk lies.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// Bytes; at least one.
    pub(crate) length: u64,
    /// Where.
    pub(crate) place: Place,
}

/// Where bytes are.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "the format that needs memory follows")]
pub(crate) enum Place {
    /// In [`super::Map::files`]`[file]` from `offset` on.
    File {
        /// Index of the file.
        file: usize,
        /// First byte.
        offset: u64,
    },
    /// Nowhere: they read as zero.
    Zero,
    /// In memory, to be read only: the lookup has produced them (an unpacked cluster). They are copied
    /// to the guest and counted as such.
    Memory {
        /// What was produced.
        bytes: Arc<[u8]>,
        /// First byte in it. All of the extent lies in `bytes`.
        offset: usize,
    },
}

/// Where a run of bytes begins in a file.
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
    /// Adds one at the end.
    pub(crate) fn push(&mut self, length: u64, place: Place) {
        if length == 0 {
            return;
        }
        if let Some(last) = self.0.last_mut()
            && place.follows(&last.place, last.length)
        {
            last.length += length;
            return;
        }
        self.0.push(Extent { length, place });
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn as_slice(&self) -> &[Extent] {
        &self.0
    }
}

impl Place {
    /// Whether it begins where `length` bytes at `before` end.
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
