//! The content of an item: bytes, or a file of the host that is read when the guest asks for it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The content of an item. Clones share it.
#[derive(Clone, Debug)]
pub enum Content {
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
    /// The first `len` bytes of a file. Errors and missing bytes fail the transfer that meets them.
    File {
        /// The file.
        file: Arc<File>,
        /// Bytes of the item.
        len: u64,
    },
}

impl Content {
    /// Returns the number of bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File { len, .. } => *len,
        }
    }

    /// Returns whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads bytes from `offset`. All of them must exist.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        match self {
            Content::Bytes(bytes) => {
                let start = usize::try_from(offset).map_err(io::Error::other)?;
                let end = start.checked_add(data.len());
                let part = end.and_then(|end| bytes.get(start..end));
                data.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            Content::File { file, .. } => file.read_exact_at(data, offset),
        }
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Content {
        Content::Bytes(bytes.into())
    }
}
