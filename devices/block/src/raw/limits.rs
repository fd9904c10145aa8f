//! Limits of raw images, with reasons (docs/limits.md).

/// Most requests that one ring works on at a time; further requests wait. Storage rarely has deeper
/// queues, and each bounced request holds a buffer.
pub(super) const RING_DEPTH: u32 = 256;

/// Most threads of the kernel for those calls of a worker's rings that block. The kernel's own
/// limit is four for each processor: as many calls to one stalled file system would block all other
/// disks of the worker. It creates a thread when it needs one.
pub(super) const KERNEL_THREADS: u32 = 4 * RING_DEPTH;

/// Most threads of one image. More only compete for the storage and the image's locks in the
/// kernel.
pub(super) const MAX_THREADS: usize = 8;

/// Most threads of one image that discard or zero at the same time. Such a call may take seconds,
/// so the other threads are reserved for reads and writes.
pub(super) const MAX_CLEARING: usize = MAX_THREADS / 2;

/// Bytes of a bounce buffer. Longer requests use it in parts, so that a guest cannot make the host
/// allocate much memory.
pub(super) const BOUNCE: usize = 64 << 10;

/// Consecutive calls without effect that asked to be repeated, after which their error is final.
pub(super) const MAX_IDLE_CALLS: u32 = 1000;

/// The same limit when the system is out of memory, because waiting here would take more of it.
pub(super) const MAX_IDLE_CALLS_WITHOUT_MEMORY: u32 = 8;

/// Most bytes of one call without data. Some file systems process a call in one go, and a call for
/// a whole disk would block the others for too long.
pub(super) const MAX_CLEAR: u64 = 1 << 30;

/// Most pieces of one preadv or pwritev (Linux's IOV_MAX).
pub(super) const MAX_PIECES: usize = libc::UIO_MAXIOV as usize;

/// Most bytes of guest memory that are registered with a ring as one buffer (the kernel's own
/// limit).
pub(super) const MAX_FIXED: usize = 1 << 30;

/// Most bytes of one piece: the kernel moves less than 2 GiB at a time.
pub(super) const MAX_PIECE: usize = 1 << 30;
