//! Guest memory that is registered with rings (io_uring's registered buffers), so that the kernel
//! does not have to look up and pin the pages of each request.
//!
//! One registration serves all queues of all disks: a ring without requests owns it, and every
//! queue's ring shares it (Linux 6.12). If the kernel cannot share, each ring registers the memory
//! separately, and it counts against the limit of locked memory each time.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::{IoUring, Probe, opcode};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmbus_gpadl::GuestRam;

use super::limits::MAX_FIXED;

/// All of a machine's memory, registered and pinned for as long as this value lives. The host can
/// neither swap it out nor take it back. A component that returns pages to the host, such as a
/// balloon, must not do so during that time: the rings would continue to use the old pages.
pub struct FixedMemory {
    home: IoUring,
    /// The chunks, ordered by address. The index of a chunk is its number in the kernel's table.
    chunks: Vec<Chunk>,
    /// Whether the kernel lets rings share the registration of `home`.
    shares: bool,
    vectored: bool,
    /// The last field, because the addresses must stay mapped while the kernel uses them.
    _ram: GuestRam,
}

/// The memory that is registered as one buffer.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    start: usize,
    len: usize,
}

/// The reason that guest memory cannot be registered, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum FixedError {
    /// There is no io_uring.
    #[error(
        "buffers=fixed needs io_uring, which this kernel does not have or does not allow: {0}; \
        use buffers=plain"
    )]
    NoUring(#[source] io::Error),
    /// The process may not lock that much memory.
    #[error(
        "buffers=fixed locks all {mib} MiB of the guest's memory, and this process may not lock \
        more than {limit} KiB; raise its limit \
         (ulimit -l, or LimitMEMLOCK= of a service), give it CAP_IPC_LOCK, or use buffers=plain"
    )]
    Limit {
        /// Guest memory in MiB.
        mib: u64,
        /// RLIMIT_MEMLOCK in KiB.
        limit: u64,
    },
    /// Any other reason.
    #[error(
        "buffers=fixed locks all {mib} MiB of the guest's memory, and the kernel refused: \
        {source}; use buffers=plain"
    )]
    Refused {
        /// Guest memory in MiB.
        mib: u64,
        /// The system's error.
        source: io::Error,
    },
}

impl FixedMemory {
    /// Registers all of `ram`. This allocates every page of it on the host, which takes time.
    ///
    /// # Errors
    /// [`FixedError`]: the kernel's reason, and the remedy.
    pub fn new(ram: &GuestRam) -> Result<Arc<Self>, FixedError> {
        Self::in_chunks(ram, MAX_FIXED)
    }

    /// Registers all of `ram` like [`Self::new`], in chunks of at most `most` bytes, a multiple of
    /// the page size.
    pub(super) fn in_chunks(ram: &GuestRam, most: usize) -> Result<Arc<Self>, FixedError> {
        let home = IoUring::new(1).map_err(FixedError::NoUring)?;
        let chunks = split(ram, most);
        register(&home, &chunks).map_err(|source| {
            let mib = (chunks.iter().map(|chunk| chunk.len as u64).sum::<u64>()) >> 20;
            match locked_limit() {
                Some(limit) if source.raw_os_error() == Some(libc::ENOMEM) => {
                    FixedError::Limit { mib, limit: limit >> 10 }
                }
                _ => FixedError::Refused { mib, source },
            }
        })?;
        let mut known = Probe::new();
        let vectored = home.submitter().register_probe(&mut known).is_ok()
            && [opcode::ReadvFixed::CODE, opcode::WritevFixed::CODE]
                .iter()
                .all(|&code| known.is_supported(code));
        let shares = IoUring::new(1).is_ok_and(|ring| {
            let shared = ring.submitter().register_buffers_clone(home.as_raw_fd()).is_ok();
            let _ = ring.submitter().unregister_buffers();
            shared
        });
        Ok(Arc::new(Self { home, chunks, shares, vectored, _ram: ram.clone() }))
    }

    /// Registers the memory with `ring`, which must unregister it (`unregister_buffers`) before
    /// this is dropped.
    ///
    /// # Errors
    /// The kernel refuses. This can happen only if it cannot share registrations, and the limit of
    /// locked memory is reached.
    pub(super) fn attach(&self, ring: &IoUring) -> io::Result<()> {
        if self.shares {
            return ring.submitter().register_buffers_clone(self.home.as_raw_fd());
        }
        register(ring, &self.chunks)
    }

    /// Returns the number of the chunk that contains the `len` bytes at `base`. `None`: no chunk
    /// contains them all.
    pub(super) fn find(&self, base: *const u8, len: usize) -> Option<u16> {
        let index =
            self.chunks.partition_point(|chunk| chunk.start <= base.addr()).checked_sub(1)?;
        self.chunks[index].contains(base, len).then_some(index as u16)
    }

    /// Returns the number of the chunk that contains all of `pieces`, for kernels that support
    /// several pieces in one call (6.15).
    pub(super) fn find_all(&self, pieces: &[libc::iovec]) -> Option<u16> {
        let (first, others) = pieces.split_first().filter(|_| self.vectored)?;
        let index = self.find(first.iov_base.cast(), first.iov_len)?;
        let chunk = self.chunks[usize::from(index)];
        others
            .iter()
            .all(|piece| chunk.contains(piece.iov_base.cast(), piece.iov_len))
            .then_some(index)
    }
}

#[cfg(test)]
impl FixedMemory {
    /// Simulates a kernel that cannot share, unless `shares`.
    pub(super) fn share(&mut self, shares: bool) {
        self.shares &= shares;
    }

    pub(super) fn is_shared(&self) -> bool {
        self.shares
    }

    pub(super) fn takes_many(&self) -> bool {
        self.vectored
    }
}

impl Chunk {
    fn contains(self, base: *const u8, len: usize) -> bool {
        let at = base.addr().wrapping_sub(self.start);
        at <= self.len && len <= self.len - at
    }
}

impl fmt::Debug for FixedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedMemory")
            .field("chunks", &self.chunks)
            .field("shares", &self.shares)
            .finish()
    }
}

impl Drop for FixedMemory {
    /// Unpins the pages now: the kernel closes a ring only some time after its descriptor.
    fn drop(&mut self) {
        let _ = self.home.submitter().unregister_buffers();
    }
}

fn split(ram: &GuestRam, most: usize) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for region in ram.memory().iter() {
        let (base, len) = (region.as_ptr().expose_provenance(), region.len() as usize);
        let parts = (0..len).step_by(most);
        chunks.extend(parts.map(|at| Chunk { start: base + at, len: most.min(len - at) }));
    }
    chunks.sort_unstable_by_key(|chunk| chunk.start);
    chunks
}

fn register(ring: &IoUring, chunks: &[Chunk]) -> io::Result<()> {
    let iovec = |chunk: &Chunk| libc::iovec {
        iov_base: std::ptr::with_exposed_provenance_mut(chunk.start),
        iov_len: chunk.len,
    };
    let iovecs: Vec<_> = chunks.iter().map(iovec).collect();
    // SAFETY: the chunks are mappings of guest memory, which exist until the ring has unregistered
    // them: `FixedMemory` holds the memory, and the owner of an attached ring holds the
    // `FixedMemory`.
    unsafe { ring.submitter().register_buffers(&iovecs) }
}

/// Returns RLIMIT_MEMLOCK in bytes. `None`: there is no limit.
fn locked_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call fills the struct at its argument.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0;
    (known && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}
