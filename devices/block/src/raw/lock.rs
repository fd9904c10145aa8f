//! Advisory locks, so that two machines never write one image.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use super::error::OpenError;

/// An open and locked image file. Its content has not been read yet.
///
/// Its format is detected, its headers are read and its bytes are moved through this one
/// descriptor, or through others that are opened from it. So the file in use is the locked file,
/// even if its path now names another file. Clones share the lock, which ends with the last clone.
#[derive(Clone, Debug)]
pub struct LockedFile {
    lock: Arc<Lock>,
    path: PathBuf,
    read_only: bool,
    metadata: Metadata,
}

impl LockedFile {
    /// Opens and locks the file at `path`: exclusively, or shared with other readers when
    /// `read_only`.
    ///
    /// # Errors
    /// [`OpenError`]: the problem of the file, and the remedy.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, OpenError> {
        let file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            // Without O_NONBLOCK, opening a FIFO would wait for its other end.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(|error| OpenError::from_open(path, read_only, error))?;
        #[cfg(any(test, feature = "conformance"))]
        crate::conformance::seam::opened(path);
        Self::from_file(file, path, read_only)
    }

    /// Locks `file`, which was opened at `path`: exclusively, or shared with other readers when
    /// `read_only`.
    ///
    /// # Errors
    /// [`OpenError`]: the problem of the file, and the remedy.
    pub fn from_file(file: File, path: &Path, read_only: bool) -> Result<Self, OpenError> {
        let inspect = |source: io::Error| OpenError::Inspect { path: path.to_owned(), source };
        let kind = file.metadata().map_err(inspect)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::not_a_disk(path, kind));
        }
        if !try_lock(&file, read_only).map_err(inspect)? {
            return Err(OpenError::Locked { path: path.to_owned() });
        }
        let lock = Arc::new(Lock(file));
        // The size is read under the lock, because its holder may change it.
        let metadata = lock.metadata().map_err(inspect)?;
        clear_nonblock(&lock).map_err(inspect)?;
        Ok(Self { lock, path: path.to_owned(), read_only, metadata })
    }

    /// Returns the open file.
    pub fn file(&self) -> &File {
        &self.lock
    }

    /// Returns the path at which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether it was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Returns the file's metadata as they were when it was locked.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    pub(super) fn lock(&self) -> &Arc<Lock> {
        &self.lock
    }
}

/// A locked file. The lock ends when this is dropped.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Deref for Lock {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        unlock(&self.0);
    }
}

fn clear_nonblock(file: &File) -> io::Result<()> {
    // SAFETY: plain fcntl calls on a descriptor that `file` keeps open.
    unsafe {
        let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        if flags < 0 || libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK) < 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Releases the lock immediately. A child process that is being started has a copy of every
/// descriptor for a moment, and with it the lock.
pub fn unlock(file: &File) {
    // SAFETY: `flock` is plain integers; zero is a valid value of each.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_UNLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is open while `file` lives, and `lock` is a valid flock that the
    // kernel only reads. The call fails on file systems without locks, where there is no lock to
    // release.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
}

/// Locks all of `file` until its last descriptor is closed: shared for readers, exclusive for a
/// writer. Returns false when another process or descriptor holds the lock.
///
/// The lock is an open-file-description lock: it belongs to the opened file, not to the process. So
/// opening an image twice in one program fails too, and closing another descriptor of the image
/// does not release the lock.
///
/// # Errors
/// The system's error. A file system without locks is no error: a warning is logged, and the image
/// is used unprotected.
pub fn try_lock(file: &File, shared: bool) -> io::Result<bool> {
    // SAFETY: `flock` is plain integers; zero is a valid value of each.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = (if shared { libc::F_RDLCK } else { libc::F_WRLCK }) as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    loop {
        // SAFETY: the descriptor is open while `file` lives, and `lock` is a valid flock that the
        // kernel only reads.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EAGAIN | libc::EACCES) => return Ok(false),
            Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => {
                warn!(%error, "the file system of a disk image has no locks: a second program can \
                    open the image");
                return Ok(true);
            }
            _ => return Err(error),
        }
    }
}
