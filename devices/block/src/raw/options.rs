//! A user's options for a raw image.

use std::str::FromStr;

/// How to open a raw image. The default is what most want: writable, through the host's page cache,
/// by the fastest means at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawOptions {
    /// Refuse writes; other readers may have the image open, too.
    pub read_only: bool,
    /// Whether the host's page cache is used.
    pub cache: CacheMode,
    /// How requests reach the kernel.
    pub io: IoMode,
}

/// Whether data goes through the host's page cache. In either mode writes are durable after a
/// flush, and forced ones at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// `writeback`: it does. Reads of what the host remembers are fast; writes are fast until the
    /// host must write them out.
    #[default]
    Writeback,
    /// `none`: O_DIRECT, straight between the guest's pages and the storage. Memory that the
    /// storage cannot reach, by its alignment, goes through a buffer; offsets that it cannot
    /// address go through the page cache. Both are counted as copied.
    None,
}

/// How requests reach the kernel. All mean the same to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoMode {
    /// `auto`: `uring` where the kernel allows it, else `threads`.
    #[default]
    Auto,
    /// `uring`: one io_uring per queue, a batch by one system call; a request that waits keeps no
    /// other waiting.
    Uring,
    /// `threads`: a few threads per image. For kernels without io_uring, and containers that forbid
    /// it.
    Threads,
    /// `sync`: on the thread that asks, which then serves no other disk meanwhile. For tools and
    /// measurements.
    Sync,
}

/// A word that is none of an option's.
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
