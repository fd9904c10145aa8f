//! A user's options for a raw image.

use std::str::FromStr;

/// The options for opening a raw image. The defaults suit most users: writable, through the host's
/// page cache, by the fastest I/O path that works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawOptions {
    /// Refuse writes. Other readers may also have the image open.
    pub read_only: bool,
    /// Whether the host's page cache is used.
    pub cache: CacheMode,
    /// How requests reach the kernel.
    pub io: IoMode,
}

/// The use of the host's page cache. In both modes writes are durable after a flush, and forced
/// writes immediately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// `writeback`: data goes through the page cache. Reads of cached data are fast; writes are
    /// fast until the host must write them out.
    #[default]
    Writeback,
    /// `none`: O_DIRECT, directly between the guest's pages and the storage. Data in memory with an
    /// alignment that the storage does not support goes through a buffer; offsets that the storage
    /// cannot address go through the page cache. Both are counted as copied.
    None,
}

/// The paths by which requests reach the kernel. All have the same semantics for the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoMode {
    /// `auto`: `uring` if the kernel allows it, otherwise `threads`.
    #[default]
    Auto,
    /// `uring`: one io_uring per queue, with one system call for a batch. A slow request does not
    /// delay others.
    Uring,
    /// `threads`: a few threads per image. For kernels without io_uring, and containers that forbid
    /// it.
    Threads,
    /// `sync`: on the caller's thread, which meanwhile serves no other disk. For tools and
    /// measurements.
    Sync,
}

/// The error for a word that is not a value of the option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{given}' is none of: {allowed}")]
pub struct UnknownMode {
    given: String,
    allowed: &'static str,
}

impl FromStr for CacheMode {
    type Err = UnknownMode;

    fn from_str(word: &str) -> Result<Self, UnknownMode> {
        match word {
            "writeback" => Ok(Self::Writeback),
            "none" => Ok(Self::None),
            _ => Err(UnknownMode { given: word.to_owned(), allowed: "writeback, none" }),
        }
    }
}

impl FromStr for IoMode {
    type Err = UnknownMode;

    fn from_str(word: &str) -> Result<Self, UnknownMode> {
        match word {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "threads" => Ok(Self::Threads),
            "sync" => Ok(Self::Sync),
            _ => Err(UnknownMode { given: word.to_owned(), allowed: "auto, uring, threads, sync" }),
        }
    }
}
