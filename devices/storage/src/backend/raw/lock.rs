//! Advisory locks, so that two machines never write one image.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use tracing::warn;

/// Ends the lock at once. A child process that is just being started has a copy of every descriptor for a moment, and with it the lock.
pub fn unlock(file: &File) {
    // SAFETY: `flock` is plain integers; zero is a valid value of each.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_UNLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is open while `file` lives, and `lock` is a valid flock that the kernel only reads.
    // It fails where there are no locks.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
}

/// Locks all of `file` until its last descriptor is closed: shared for readers, exclusive for a writer. False when somebody else holds it.
///
/// An open-file-description lock: it belongs to the opened file, not to the process, so opening an image twice in one program fails too,
/// and closing some other descriptor of it does not release it.
///
/// # Errors
/// The system's. A file system without locks is not an error: it is said in the log, and the image is used unprotected.
pub fn try_lock(file: &File, shared: bool) -> io::Result<bool> {
    // SAFETY: `flock` is plain integers; zero is a valid value of each.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = (if shared { libc::F_RDLCK } else { libc::F_WRLCK }) as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    loop {
        // SAFETY: the descriptor is open while `file` lives, and `lock` is a valid flock that the kernel only reads.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EAGAIN | libc::EACCES) => return Ok(false),
            Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => {
                warn!(%error, "the file system of a disk image has no locks: nothing keeps a second user away");
                return Ok(true);
            }
            _ => return Err(error),
        }
    }
}
