//! Limits of raw images, and why (docs/limits.md).

/// Requests that one ring works on at a time; more wait their turn. Storage rarely has deeper
/// queues, and what bounces holds a buffer.
pub(super) const RING_DEPTH: u32 = 256;

/// Most threads of one image. More only compete for the storage and the image's locks in the
/// kernel.
pub(super) const MAX_THREADS: usize = 8;

/// Threads of one image that discard or zero at the same time. Such a call may take seconds: the
/// others are left to reads and writes.
pub(super) const MAX_CLEARING: usize = MAX_THREADS / 2;

/// Bytes of a bounce buffer: longer requests go through it in parts, so that a guest cannot make us
/// hold much of it.
pub(super) const BOUNCE: usize = 64 << 10;

/// Calls in a row that did nothing and asked to be repeated, after which their error stands.
pub(super) const MAX_IDLE_CALLS: u32 = 1000;

/// The same when the system is out of memory: waiting for it here would only take more.
pub(super) const MAX_IDLE_CALLS_WITHOUT_MEMORY: u32 = 8;

/// Most bytes of one call without data: some file systems work on them in one go, and nobody can
/// wait for a whole disk.
pub(super) const MAX_CLEAR: u64 = 1 << 30;

/// Most pieces of one preadv or pwritev (Linux's IOV_MAX).
pub(super) const MAX_PIECES: usize = libc::UIO_MAXIOV as usize;

/// Most bytes of guest memory that are registered with a ring as one buffer (the kernel's own
/// limit).
pub(super) const MAX_FIXED: usize = 1 << 30;

/// Most bytes of one piece: the kernel moves less than 2 GiB at a time.
pub(super) const MAX_PIECE: usize = 1 << 30;
