//! The unit in which the kernel maps a file.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

/// Returns the bytes of one page of `file`, a power of two: the page size of its hugetlbfs (a memfd
/// with `MFD_HUGETLB` also belongs to one), otherwise the host's. Addresses, offsets and lengths of
/// mappings are multiples of it; the kernel rounds other lengths up (mmap(2), "Huge page
/// mappings").
///
/// `None` when the host does not report it.
pub(crate) fn of(file: &File) -> Option<usize> {
    let mut status = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open, and the buffer has the size of the result.
    if unsafe { libc::fstatfs(file.as_raw_fd(), status.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call has succeeded and filled the buffer.
    let status = unsafe { status.assume_init() };
    let bytes = if status.f_type == libc::HUGETLBFS_MAGIC {
        usize::try_from(status.f_bsize).ok()?
    } else {
        // SAFETY: the call returns a constant of the system.
        usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?
    };
    bytes.is_power_of_two().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::fd::FromRawFd;

    use super::*;

    #[test]
    fn test_page_size_of_memory_files_is_that_of_their_pages() {
        let huge = libc::MFD_HUGETLB;
        for (flags, expected) in [
            (0, 4096),
            (huge | libc::MFD_HUGE_2MB, 2 << 20),
            // A processor without pages of 1 GiB has no such file.
            (huge | libc::MFD_HUGE_1GB, 1 << 30),
        ] {
            // SAFETY: the name is a C string; the call accesses no other memory.
            let fd = unsafe {
                libc::memfd_create(c"page-size-test".as_ptr(), libc::MFD_CLOEXEC | flags)
            };
            if fd < 0 && expected == 1 << 30 {
                continue;
            }
            assert!(fd >= 0, "{}", std::io::Error::last_os_error());
            // SAFETY: a fresh descriptor without another owner.
            assert_eq!(of(&unsafe { File::from_raw_fd(fd) }), Some(expected));
        }
        assert_eq!(of(&File::open("/proc/self/exe").unwrap()), Some(4096));
    }
}
