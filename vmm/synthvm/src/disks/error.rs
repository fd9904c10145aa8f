//! The error of changing a machine's disks.

use synthvm_block::{FixedError, IoError};
use synthvm_images::{OpenError, ToolError};
use synthvm_storvsp::{AddDiskError, DvdError};

use crate::config::{ByteSize, MAX_LUNS};

/// The error of adding, changing or removing a disk or a drive.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The image cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The image cannot be created.
    #[error(transparent)]
    Create(#[from] ToolError),
    /// The controller refused the disk.
    #[error(transparent)]
    Add(#[from] AddDiskError),
    /// The guest's memory cannot be pinned.
    #[error(transparent)]
    Fixed(#[from] FixedError),
    /// The disk is larger than the host's memory.
    #[error(
        "{size} is more memory than this host has ({total}); make the disk smaller, or use an image"
    )]
    HostMemory {
        /// The disk's size.
        size: ByteSize,
        /// The host's memory.
        total: ByteSize,
    },
    /// The memory of the disk cannot be reserved.
    #[error("the host cannot reserve {size} of memory: {error}")]
    Memory {
        /// The disk's size.
        size: ByteSize,
        /// The system's error.
        error: std::io::Error,
    },
    /// The user's options contradict each other or the machine.
    #[error("{0}")]
    Refused(String),
    /// The requested block size is smaller than the image's own.
    #[error(
        "block-size={asked}: the image has blocks of {own} bytes, which are read and written \
        whole; leave block-size out, or write {own}"
    )]
    SmallBlocks {
        /// Bytes that were asked for.
        asked: u32,
        /// The image's own block size in bytes.
        own: u32,
    },
    /// The image's size is not a multiple of the requested block size.
    #[error(
        "block-size={asked}: the image has {size} bytes, which is not a multiple; leave \
        block-size out, or make the image larger"
    )]
    OddSize {
        /// Bytes that were asked for.
        asked: u32,
        /// Bytes of the disk.
        size: u64,
    },
    /// No disk has this name.
    #[error("there is no disk `{id}`; {}", name_all(.known))]
    Unknown {
        /// The requested name.
        id: String,
        /// The names of all disks.
        known: Vec<String>,
    },
    /// The controller has no free LUN.
    #[error(
        "controller {0} has {max} disks already; name another one with controller=",
        max = MAX_LUNS
    )]
    Full(u32),
    /// The controller cannot be offered on the bus.
    #[error("controller {0} cannot be offered: {1}")]
    Offer(u32, String),
    /// The drive refused the change, or the unit is not a drive.
    #[error("`{0}`: {1}")]
    Disc(String, DvdError),
    /// The image cannot take the new size.
    #[error("`{id}` cannot be made {size}: {error}")]
    Resize {
        /// The disk.
        id: String,
        /// The requested size in bytes.
        size: ByteSize,
        /// Why.
        error: IoError,
    },
    /// The flush of a removed disk failed: its last writes may be lost.
    #[error("`{id}` was removed, but its last writes could not be made durable: {error}")]
    Flush {
        /// The disk.
        id: String,
        /// Why.
        error: IoError,
    },
    /// The flush at the machine's end failed: the last writes may be lost.
    #[error("the last writes to `{id}` could not be made durable: {error}")]
    LastFlush {
        /// The disk.
        id: String,
        /// Why.
        error: IoError,
    },
    /// The requests of a removed disk or its flush have not ended in time.
    #[error(
        "`{0}` was removed, but its requests have not ended after {1} seconds; its image is \
        flushed and closed when they have"
    )]
    Busy(String, u64),
}

fn name_all(ids: &[String]) -> String {
    match ids {
        [] => "the machine has none".to_owned(),
        ids => format!("there are {}", ids.join(", ")),
    }
}
