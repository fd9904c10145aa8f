//! The changes that the log contains.

use std::fmt;

/// One change to a file, in the form of a system call.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// A write. `durable`: with RWF_DSYNC, so that these bytes are durable when it completes.
    Write {
        /// First byte in the file.
        offset: u64,
        /// The bytes, copied when the write is issued.
        bytes: Vec<u8>,
        /// Durable on completion.
        durable: bool,
    },
    /// A range reads as zero (a punched hole or a zeroed range). The file keeps its length.
    Zero {
        /// First byte in the file.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// A new length in bytes: the file is truncated, or zeroes are added at its end.
    Length(u64),
    /// fsync or fdatasync: all changes that were completed before its issue are durable on its
    /// completion.
    Sync,
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { offset, bytes, durable } => {
                let kind = if *durable { "durable write" } else { "write" };
                write!(f, "{kind} {:#x}+{:#x}", offset, bytes.len())?;
                // A small write is an entry of a table, and its value helps to understand the
                // failure.
                if bytes.len() <= 8 { write!(f, " {bytes:02x?}") } else { Ok(()) }
            }
            Self::Zero { offset, length } => write!(f, "zero {offset:#x}+{length:#x}"),
            Self::Length(length) => write!(f, "length {length:#x}"),
            Self::Sync => f.write_str("sync"),
        }
    }
}
