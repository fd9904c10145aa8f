//! A user's options for a raw image.

use serde::{Deserialize, Serialize};

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
