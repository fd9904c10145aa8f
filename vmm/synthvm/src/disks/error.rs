//! Why a disk cannot be had, or cannot be changed.

use synthvm_block::{FixedError, IoError};
use synthvm_images::OpenError;
use synthvm_storvsp::{AddDiskError, DvdError};

use crate::config::{ByteSize, MAX_LUNS};

/// Why a disk cannot be had, or cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The image cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The controller refused it.
    #[error(transparent)]
    Add(#[from] AddDiskError),
    /// The guest's memory cannot be kept in place.
    #[error(transparent)]
    Fixed(#[from] FixedError),
    /// The host will never have so much memory.
    #[error(
        "{size} is more memory than this host has ({total}); make the disk smaller, or use an image"
    )]
    HostMemory {
        /// The disk's size.
        size: ByteSize,
        /// The host's memory.
        total: ByteSize,
    },
    /// The host does not give out so much memory.
    #[error("the host gives out no {size} of memory: {error}")]
    Memory {
        /// The disk's size.
        size: ByteSize,
        /// What the system said.
        error: std::io::Error,
    },
    /// What the user wrote contradicts itself or the machine.
    #[error("{0}")]
    Refused(String),
    /// Smaller blocks than the image can address.
    #[error(
        "block-size={asked}: the image's own blocks have {own} bytes and are read and written whole; leave block-size out, or write {own}"
    )]
    SmallBlocks {
        /// Bytes that were asked for.
        asked: u32,
        /// Bytes that the image has.
        own: u32,
    },
    /// Blocks that the image does not consist of.
    #[error(
        "block-size={asked}: the image has {size} bytes, which is not a multiple; leave block-size out, or make the image larger"
    )]
    OddSize {
        /// Bytes that were asked for.
        asked: u32,
        /// Bytes of the disk.
        size: u64,
    },
    /// No disk has that name.
    #[error("there is no disk `{id}`; {}", name_all(.known))]
    Unknown {
        /// What was asked for.
        id: String,
        /// The disks that there are.
        known: Vec<String>,
    },
    /// The controller has no free LUN.
    #[error("controller {0} has {max} disks already; name another one with controller=", max = MAX_LUNS)]
    Full(u32),
    /// The bus has no channel left for another controller.
    #[error("controller {0} cannot be offered: {1}")]
    Offer(u32, String),
    /// The drive refused, or is none.
    #[error("`{0}`: {1}")]
    Disc(String, DvdError),
    /// The image did not take the new size.
    #[error("`{id}` cannot be made {size}: {error}")]
    Resize {
        /// The disk.
        id: String,
        /// The size that was asked for.
        size: ByteSize,
        /// Why.
        error: IoError,
    },
    /// The last writes may be lost.
    #[error("`{id}` was removed, but its last writes could not be made durable: {error}")]
    Flush {
        /// The disk.
        id: String,
        /// Why.
        error: IoError,
    },
    /// At the machine's end: the last writes may be lost.
    #[error("the last writes to `{id}` could not be made durable: {error}")]
    LastFlush {
        /// The disk.
        id: String,
        /// Why.
        error: IoError,
    },
    /// Requests on the disk do not end, or its flush does not.
    #[error(
        "`{0}` was removed, but requests on it have not ended after {1} seconds; its image stays open until they have, and is flushed then"
    )]
    Busy(String, u64),
}

fn name_all(ids: &[String]) -> String {
    match ids {
        [] => "the machine has none".to_owned(),
        ids => format!("there are {}", ids.join(", ")),
    }
}
