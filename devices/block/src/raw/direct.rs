//! A second descriptor of an image, which bypasses the page cache.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The alignment that nearly all storage accepts, for file systems that report none.
const USUAL: u32 = 4096;

/// A descriptor with O_DIRECT.
#[derive(Debug)]
pub(super) struct Direct {
    pub(super) file: File,
    align: Align,
}

/// The alignments that the storage needs: powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Align {
    /// The alignment of each address.
    pub(super) memory: usize,
    /// The alignment of the offset, and of each piece's length.
    pub(super) offset: u64,
}

impl Direct {
    /// Opens the file behind `file`, which is a locked raw image, with O_DIRECT. It is opened
    /// through its descriptor, as its path may now name another file.
    ///
    /// # Errors
    /// The file system has no direct I/O (EINVAL), or another error of the system.
    pub(super) fn open(file: &File, read_only: bool) -> io::Result<Self> {
        let file = reopen(file, read_only, libc::O_DIRECT)?;
        let align = alignment(&file)?;
        Ok(Self { file, align })
    }

    pub(super) fn align(&self) -> Align {
        self.align
    }
}

/// Opens the file behind `file` again: the same file, with a descriptor and error state of its own.
pub(super) fn reopen(file: &File, read_only: bool, flags: i32) -> io::Result<File> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let options = |path: &Path| {
        OpenOptions::new()
            .read(true)
            .write(!read_only)
            .custom_flags(flags | libc::O_NOCTTY)
            .open(path)
    };
    options(&path)
}

impl Align {
    /// Returns whether the storage can address offset and length.
    pub(super) fn fits_medium(self, offset: u64, length: u64) -> bool {
        (offset | length) & (self.offset - 1) == 0
    }

    /// Returns whether the storage can access the memory.
    pub(super) fn fits_memory(self, pieces: &[libc::iovec]) -> bool {
        let bad = |piece: &libc::iovec| {
            piece.iov_base.addr() & (self.memory - 1) != 0
                || piece.iov_len as u64 & (self.offset - 1) != 0
        };
        !pieces.iter().any(bad)
    }
}

/// Queries the alignment by statx (Linux 6.1), where the file system reports it.
fn alignment(file: &File) -> io::Result<Align> {
    // SAFETY: `statx` is plain integers; zero is a valid value of each.
    let mut about: libc::statx = unsafe { std::mem::zeroed() };
    let empty = CString::default();
    let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN);
    // SAFETY: an open descriptor, an empty path, and a buffer for the answer.
    let result =
        unsafe { libc::statx(file.as_raw_fd(), empty.as_ptr(), flags, mask, &raw mut about) };
    let (memory, offset) = (about.stx_dio_mem_align, about.stx_dio_offset_align);
    if result != 0 || about.stx_mask & libc::STATX_DIOALIGN == 0 {
        return Ok(Align { memory: USUAL as usize, offset: USUAL.into() });
    }
    if offset == 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let (memory, offset) = (memory.max(1).next_power_of_two(), offset.next_power_of_two().max(512));
    // The bounce buffer is aligned to 4096 and moves parts of 64 KiB.
    if memory > USUAL || offset > USUAL {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(Align { memory: memory as usize, offset: offset.into() })
}
