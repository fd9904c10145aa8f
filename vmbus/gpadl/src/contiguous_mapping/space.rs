//! A part of the address space into which pieces of files are mapped.
//!
//! Two rules keep `MAP_FIXED` from replacing other mappings:
//!
//! * The kernel works in pages of the file, which are larger than 4 KiB for hugetlbfs: it rounds
//!   the length of a mapping up and replaces all memory up to there. So a piece is never mapped if
//!   its address, offset or length is no multiple of that page size.
//! * An address range in an unknown state is never used again. `mmap(2)` with `MAP_FIXED` may have
//!   removed the old mapping before it failed, and another thread may have got the range meanwhile;
//!   `munmap(2)` may fail when the process has too many mappings. Such a range is leaked: it keeps
//!   its share of the limit on mappings, so leaks are bounded, and each is counted and logged.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use vmbus_protocol::limits::PAGE_SIZE;

use super::FilePiece;
use super::pool::Share;

/// Bytes of address space that all reservations of this process have leaked.
static LEAKED: AtomicUsize = AtomicUsize::new(0);

/// Returns the bytes of address space that this process has leaked because the host refused to map
/// or to unmap them. 0 on a sound host. The limit on contiguous mappings bounds it.
#[must_use]
pub fn leaked_address_space() -> usize {
    LEAKED.load(Ordering::Relaxed)
}

/// Reserved address space, filled from its start and unmapped on drop.
#[derive(Debug)]
pub(super) struct Space {
    /// The start of the reservation.
    start: NonNull<u8>,
    bytes: usize,
    /// Bytes before the first aligned address, where the pieces begin.
    skipped: usize,
    /// Bytes of the pieces, from that address on.
    filled: usize,
    /// The piece that could not be mapped: its offset in the reservation, and its length.
    unknown: Option<(usize, usize)>,
    share: Share<'static>,
}

// SAFETY: it owns only a part of the address space, and any thread may unmap it.
unsafe impl Send for Space {}
// SAFETY: `&Space` gives only addresses.
unsafe impl Sync for Space {}

impl Space {
    /// Reserves `bytes` bytes at a multiple of `alignment`, a power of two, without a mapping of a
    /// file. `share` is the permission for the mappings of all pieces.
    pub(super) fn reserve(
        bytes: usize,
        alignment: usize,
        share: Share<'static>,
    ) -> io::Result<Self> {
        let slack = alignment.saturating_sub(PAGE_SIZE);
        let all = bytes.checked_add(slack).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            libc::mmap(ptr::null_mut(), all, libc::PROT_NONE, flags, -1, 0)
        };
        let Some(start) = NonNull::new(start.cast::<u8>()).filter(|_| start != libc::MAP_FAILED)
        else {
            return Err(io::Error::last_os_error());
        };
        let address = start.addr().get();
        let skipped = address.next_multiple_of(alignment.max(1)).wrapping_sub(address);
        Ok(Self { start, bytes: all, skipped, filled: 0, unknown: None, share })
    }

    /// Maps `piece` after the pieces before it.
    ///
    /// # Errors
    /// `InvalidInput` when the piece would not consist of whole pages of its file at this address,
    /// or would pass the end; the host's error when it refuses. The space must then be dropped.
    pub(super) fn push(&mut self, piece: &FilePiece) -> io::Result<()> {
        let at = self.skipped.wrapping_add(self.filled);
        let fits = self.bytes.checked_sub(at).is_some_and(|left| piece.bytes <= left);
        if !fits
            || self.unknown.is_some()
            || !piece.is_whole_pages_at(self.start.addr().get().wrapping_add(at))
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the piece replaces a part of our own reservation: it ends inside, and as its
        // address and length are multiples of the file's page size the kernel rounds no length up.
        // The file is guest RAM, readable and writable.
        let mapped = unsafe {
            let (access, flags) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
            libc::mmap(
                self.start.as_ptr().add(at).cast(),
                piece.bytes,
                access,
                flags,
                piece.fd,
                piece.offset,
            )
        };
        if mapped == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            self.unknown = Some((at, piece.bytes));
            return Err(error);
        }
        self.filled = self.filled.wrapping_add(piece.bytes);
        Ok(())
    }

    /// Returns the first byte of the first piece.
    pub(super) fn first(&self) -> NonNull<u8> {
        // SAFETY: alignment leaves at least the requested number of bytes after `skipped`.
        unsafe { self.start.add(self.skipped) }
    }

    /// Unmaps `len` bytes from `at`, or leaks them when the host refuses.
    fn unmap(&mut self, at: usize, len: usize) {
        if len == 0 {
            return;
        }
        // SAFETY: this part of the reservation is ours and in a known state; all addresses in it
        // were handed out by the owner of this value, which is being dropped.
        let result = unsafe { libc::munmap(self.start.as_ptr().add(at).cast(), len) };
        if result != 0 {
            let error = io::Error::last_os_error();
            // The number of mappings that remain there is unknown.
            self.share.keep_all();
            leak(len, &error);
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let Some((at, len)) = self.unknown else {
            self.unmap(0, self.bytes);
            return;
        };
        self.share.keep(1);
        leak(len, &io::Error::other("a piece could not be mapped there"));
        let end = at.wrapping_add(len);
        self.unmap(0, at);
        self.unmap(end, self.bytes.wrapping_sub(end));
    }
}

#[cold]
fn leak(bytes: usize, why: &io::Error) {
    LEAKED.fetch_add(bytes, Ordering::Relaxed);
    tracing::error!("{bytes} bytes of address space are lost: {why}");
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsRawFd, FromRawFd};

    use super::super::pool::Pool;
    use super::*;

    /// A lock for the tests that compare the process's count of leaked bytes.
    static COUNT: std::sync::Mutex<()> = std::sync::Mutex::new(());

    fn pool() -> &'static Pool {
        Box::leak(Box::new(Pool::new()))
    }

    fn file(pages: usize) -> File {
        // SAFETY: the name is a C string; the call accesses no other memory.
        let fd = unsafe { libc::memfd_create(c"space-test".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: a fresh descriptor without another owner.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len((pages * PAGE_SIZE) as u64).unwrap();
        file
    }

    fn piece(fd: i32, offset: usize, bytes: usize, page_size: usize) -> FilePiece {
        FilePiece { fd, offset: offset as libc::off_t, bytes, page_size }
    }

    /// Returns true when memory is mapped at `address`.
    fn is_mapped(address: usize) -> bool {
        let mut seen = 0_u8;
        // SAFETY: the call asks about one page and writes one byte.
        let result = unsafe {
            libc::mincore(ptr::without_provenance_mut(address), PAGE_SIZE, &raw mut seen)
        };
        result == 0
    }

    #[test]
    fn test_space_of_an_alignment_begins_there_and_takes_only_whole_pages() {
        let file = file(64);
        for alignment in [2 * PAGE_SIZE, 2 << 20, 1 << 30] {
            let pool = pool();
            let mut space =
                Space::reserve(4 * PAGE_SIZE, alignment, pool.take(4).unwrap()).unwrap();
            assert!(space.first().addr().get().is_multiple_of(alignment));
            let unaligned =
                [(0, PAGE_SIZE, 2 * PAGE_SIZE), (PAGE_SIZE, 2 * PAGE_SIZE, 2 * PAGE_SIZE)];
            for (offset, bytes, page_size) in unaligned {
                space.push(&piece(file.as_raw_fd(), offset, bytes, page_size)).unwrap_err();
            }
            space.push(&piece(file.as_raw_fd(), 0, PAGE_SIZE, PAGE_SIZE)).unwrap();
            // The address is that of the second page.
            space.push(&piece(file.as_raw_fd(), 0, 2 * PAGE_SIZE, 2 * PAGE_SIZE)).unwrap_err();
            space.push(&piece(file.as_raw_fd(), 0, 1 << 40, PAGE_SIZE)).unwrap_err();
            space.push(&piece(file.as_raw_fd(), 0, 3 * PAGE_SIZE, PAGE_SIZE)).unwrap();
            drop(space);
            assert!(pool.take(vmbus_protocol::limits::MAX_STITCHED_MAPPINGS).is_some());
        }
    }

    #[test]
    fn test_space_with_a_piece_that_the_host_refused_gives_back_all_but_that_piece() {
        let _count = COUNT.lock();
        let file = file(8);
        let pool = pool();
        let before = leaked_address_space();
        let mut space = Space::reserve(8 * PAGE_SIZE, PAGE_SIZE, pool.take(8).unwrap()).unwrap();
        space.push(&piece(file.as_raw_fd(), 0, 2 * PAGE_SIZE, PAGE_SIZE)).unwrap();
        space.push(&piece(-1, 0, 2 * PAGE_SIZE, PAGE_SIZE)).unwrap_err();
        space.push(&piece(file.as_raw_fd(), 0, PAGE_SIZE, PAGE_SIZE)).unwrap_err();
        let first = space.first().addr().get();
        drop(space);
        assert_eq!(leaked_address_space() - before, 2 * PAGE_SIZE);
        assert!(
            pool.take(vmbus_protocol::limits::MAX_STITCHED_MAPPINGS).is_none(),
            "a leak counts"
        );
        assert!(pool.take(vmbus_protocol::limits::MAX_STITCHED_MAPPINGS - 1).is_some());
        // The kernel refused the descriptor before it changed the range, which is therefore still
        // part of the reservation.
        assert!(is_mapped(first + 2 * PAGE_SIZE));
    }

    #[test]
    fn test_space_that_the_host_does_not_unmap_is_leaked_with_its_share() {
        let _count = COUNT.lock();
        let pool = pool();
        let before = leaked_address_space();
        let mut space = Space::reserve(4 * PAGE_SIZE, PAGE_SIZE, pool.take(8).unwrap()).unwrap();
        let first = space.first().addr().get();
        // The kernel refuses a start inside a page, as inside a hugepage.
        // SAFETY: one byte into the reservation.
        space.start = unsafe { space.start.add(1) };
        drop(space);
        assert_eq!(leaked_address_space() - before, 4 * PAGE_SIZE);
        assert!(is_mapped(first));
        let rest = vmbus_protocol::limits::MAX_STITCHED_MAPPINGS - 8;
        assert!(pool.take(rest + 1).is_none() && pool.take(rest).is_some());
    }
}
