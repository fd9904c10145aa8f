//! The lock of a folder in which a dead socket is replaced.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Time between two tries. flock(2) has no time limit of its own.
const RETRY: Duration = Duration::from_millis(20);

/// An exclusive flock on a folder; released when this is dropped.
pub(super) enum FolderLock {
    Held {
        _folder: File,
    },
    /// The file system has no such locks, or the folder may not be read: programs cannot exclude
    /// each other.
    Unavailable,
    /// Another program has it.
    Busy,
}

impl FolderLock {
    /// Tries to lock `folder` at least once, and for `timeout` at most.
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
