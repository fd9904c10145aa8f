//! The single system calls of a request, for rings and threads.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The memory of one call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Memory {
    /// One piece.
    One(*mut u8, u32),
    /// At most [`super::limits::MAX_PIECES`] pieces. The iovecs must stay in place until the call
    /// is complete.
    Many(*const libc::iovec, u32),
}

/// The two descriptors of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The descriptor that uses the page cache.
    Cached,
    /// The descriptor with O_DIRECT.
    Direct,
}

/// One system call. Until it is complete its memory stays valid, and only the guest may also access
/// it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    /// preadv.
    Read { memory: Memory, offset: u64, way: Way },
    /// pwritev. `durable`: with RWF_DSYNC.
    Write { memory: Memory, offset: u64, way: Way, durable: bool },
    /// fdatasync.
    Sync,
    /// fallocate with this mode.
    Allocate { mode: i32, offset: u64, length: u64 },
    /// BLKDISCARD, for which the rings of today's kernels have no operation.
    DiscardBlocks { offset: u64, length: u64 },
}

/// BLKDISCARD: start and length in bytes, as two u64.
const BLKDISCARD: libc::Ioctl = 0x1277;

impl Call {
    /// Returns the descriptor of the image for the call.
    pub(super) fn way(self) -> Way {
        match self {
            Self::Read { way, .. } | Self::Write { way, .. } => way,
            Self::Sync | Self::Allocate { .. } | Self::DiscardBlocks { .. } => Way::Cached,
        }
    }

    /// Makes the call on this thread, on the descriptor for [`Self::way`]. Returns the result of
    /// the call, or a negative error number, like a ring's completion.
    pub(super) fn make(self, file: &File) -> i32 {
        let fd = file.as_raw_fd();
        match self {
            Self::Read { memory, offset, .. } => {
                with_pieces(memory, |pieces, count| {
                    // SAFETY: the call's memory is valid and may be written; the descriptor is open
                    // while `file` lives.
                    unsafe { libc::preadv(fd, pieces, count, offset as libc::off_t) }
                })
            }
            Self::Write { memory, offset, durable, .. } => {
                with_pieces(memory, |pieces, count| {
                    let offset = offset as libc::off_t;
                    // SAFETY: the call's memory is valid; the descriptor is open while `file`
                    // lives.
                    unsafe {
                        if durable {
                            libc::pwritev2(fd, pieces, count, offset, libc::RWF_DSYNC)
                        } else {
                            libc::pwritev(fd, pieces, count, offset)
                        }
                    }
                })
            }
            // SAFETY: a plain call on a descriptor that is open while `file` lives.
            Self::Sync => outcome(unsafe { libc::fdatasync(fd) } as isize),
            Self::Allocate { mode, offset, length } => {
                // SAFETY: plain numbers on an open descriptor.
                let result = unsafe {
                    libc::fallocate(fd, mode, offset as libc::off_t, length as libc::off_t)
                };
                outcome(result as isize)
            }
            Self::DiscardBlocks { offset, length } => {
                let range = [offset, length];
                // SAFETY: the descriptor is open, and the request reads two u64 from `range`.
                let result = unsafe { libc::ioctl(fd, BLKDISCARD, range.as_ptr()) };
                outcome(result as isize)
            }
        }
    }

    /// Reads from the page cache on this thread, on the descriptor for [`Self::way`]. `None`: the
    /// call is no such read, or would have to wait, or fails. The caller then makes the call in the
    /// normal way and gets the error.
    pub(super) fn read_nowait(self, file: &File) -> Option<i32> {
        let Self::Read { memory, offset, way: Way::Cached } = self else { return None };
        let fd = file.as_raw_fd();
        let result = with_pieces(memory, |pieces, count| {
            // SAFETY: the call's memory is valid and may be written; the descriptor is open while
            // `file` lives.
            unsafe { libc::preadv2(fd, pieces, count, offset as libc::off_t, libc::RWF_NOWAIT) }
        });
        (result > 0).then_some(result)
    }

    /// Writes to the page cache on this thread, on the descriptor for [`Self::way`], if the storage
    /// can do that without a wait. Returns the result of the call. `None`: the call is no such
    /// write, or must be durable.
    pub(super) fn write_nowait(self, file: &File) -> Option<i32> {
        let Self::Write { memory, offset, way: Way::Cached, durable: false } = self else {
            return None;
        };
        let fd = file.as_raw_fd();
        Some(with_pieces(memory, |pieces, count| {
            // SAFETY: the call's memory is valid; the descriptor is open while `file` lives.
            unsafe { libc::pwritev2(fd, pieces, count, offset as libc::off_t, libc::RWF_NOWAIT) }
        }))
    }
}

fn with_pieces(memory: Memory, call: impl FnOnce(*const libc::iovec, libc::c_int) -> isize) -> i32 {
    outcome(match memory {
        Memory::One(base, len) => {
            let piece = libc::iovec { iov_base: base.cast(), iov_len: len as usize };
            call(&raw const piece, 1)
        }
        Memory::Many(pieces, count) => call(pieces, count as libc::c_int),
    })
}

fn outcome(result: isize) -> i32 {
    if result < 0 {
        return -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    }
    // No call moves more than i32::MAX bytes.
    result as i32
}

/// Probes a mode of fallocate beyond the end of a file, where it changes nothing.
pub(super) fn knows_punching(file: &impl AsRawFd, beyond: u64) -> bool {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let offset = beyond.next_multiple_of(4096) as libc::off_t;
    // SAFETY: plain numbers on an open descriptor; nothing lies beyond the end.
    unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, 4096) == 0 }
}
