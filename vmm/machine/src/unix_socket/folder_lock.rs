//! The lock of a directory in which a dead socket is replaced.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Time between two attempts. flock(2) has no timeout of its own.
const RETRY: Duration = Duration::from_millis(20);

/// An exclusive flock on a directory, released on drop.
pub(super) enum FolderLock {
    Held {
        _folder: File,
    },
    /// The file system has no such locks, or the directory is not readable: programs cannot exclude
    /// each other.
    Unavailable,
    /// Another program holds the lock.
    Busy,
}

impl FolderLock {
    /// Tries to lock `folder` at least once, and for at most `timeout`.
    pub(super) fn take(folder: &Path, timeout: Duration) -> Self {
        let Ok(folder) = File::open(folder) else { return Self::Unavailable };
        let start = Instant::now();
        loop {
            // SAFETY: flock takes a descriptor and a number; the descriptor is open.
            if unsafe { libc::flock(folder.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
                return Self::Held { _folder: folder };
            }
            match io::Error::last_os_error().kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock if start.elapsed() >= timeout => return Self::Busy,
                io::ErrorKind::WouldBlock => thread::sleep(RETRY.min(timeout)),
                _ => return Self::Unavailable,
            }
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Busy)
    }
}
