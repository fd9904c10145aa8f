//! Listening Unix sockets: private from their creation, never replacing another file, removed at
//! the end.
//!
//! The control socket and the sockets of serial ports use this module.

mod address;
mod folder_lock;
#[cfg(test)]
mod tests;

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use address::connect;

use address::{MAX_PATH, listen};
use folder_lock::FolderLock;

/// Longest wait for the lock of the socket's directory: another SynthVM holds it for microseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// An error in listening on a socket: the path, the cause, and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", .path.display())]
pub struct SocketError {
    path: PathBuf,
    message: String,
}

/// A listening socket, non-blocking, mode 0600. Dropping it removes its file.
#[derive(Debug)]
pub struct ListeningSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file that this socket created. A file that has replaced it is not
    /// removed.
    identity: (u64, u64),
}

impl ListeningSocket {
    /// Listens at `path`. Replaces a socket of this user on which no program listens.
    ///
    /// # Errors
    /// A program listens there; the file there is no socket, or belongs to another user; it is a
    /// dead socket and another program keeps the directory locked; the directory is absent or not
    /// writable; the path is too long for a socket (107 bytes).
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        Self::bind_within(path, LOCK_TIMEOUT)
    }

    /// Does the work of [`ListeningSocket::bind`], with a given limit on the wait for the lock.
    fn bind_within(path: &Path, timeout: Duration) -> Result<Self, SocketError> {
        let fail = |message: String| SocketError { path: path.to_owned(), message };
        let parent =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Two programs may find the same dead socket: the second must not remove the socket that
        // the first has just made. Any user with read access to the directory can hold this lock
        // without limit, so the wait is short, and only happens if there is a socket to remove.
        let mut lock = FolderLock::take(parent, Duration::ZERO);
        if lock.is_busy() && matches!(occupant(path), Ok(Occupant::DeadSocket)) {
            lock = FolderLock::take(parent, timeout);
        }
        match occupant(path).map_err(fail)? {
            Occupant::None => {}
            Occupant::DeadSocket if lock.is_busy() => {
                return Err(fail(format!(
                    "no program listens there any more, but another program keeps the folder {} \
                    locked; \
                     remove the socket, or choose a path in a folder of your own",
                    parent.display()
                )));
            }
            Occupant::DeadSocket => std::fs::remove_file(path).map_err(|error| {
                fail(format!(
                    "no program listens there any more, but it cannot be removed: {error}"
                ))
            })?,
        }
        let listener = listen(path).map_err(|error| fail(explain(&error, path, parent)))?;
        let metadata =
            std::fs::symlink_metadata(path).map_err(|error| fail(cannot_look(&error)))?;
        drop(lock);
        Ok(ListeningSocket {
            listener,
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
        })
    }

    /// Returns the socket that accepts clients.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Returns the path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ListeningSocket {
    fn drop(&mut self) {
        let is_ours = |metadata: Metadata| (metadata.dev(), metadata.ino()) == self.identity;
        if std::fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Checks whether the file at `path`, if any, permits a socket to be bound there.
///
/// # Errors
/// The file must stay. The message has the cause and the remedy.
pub fn check(path: &Path) -> Result<(), String> {
    occupant(path).map(drop)
}

/// The file at the path of a new socket.
enum Occupant {
    None,
    /// A socket of this user on which no program listens.
    DeadSocket,
}

/// Examines the file at `path`, without following a symbolic link.
///
/// # Errors
/// The file must stay. The message has the cause and the remedy.
fn occupant(path: &Path) -> Result<Occupant, String> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Occupant::None),
        Err(error) => return Err(cannot_look(&error)),
    };
    if !metadata.file_type().is_socket() {
        return Err("exists and is not a socket; choose another path".to_owned());
    }
    // SAFETY: geteuid has no preconditions.
    if metadata.uid() != unsafe { libc::geteuid() } {
        return Err("is a socket of another user; choose another path".to_owned());
    }
    match connect(path, Duration::ZERO) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Occupant::DeadSocket),
        // The file was removed in the meantime.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Occupant::None),
        // The queue of clients is full: a program listens, but is slow to accept.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(IN_USE.to_owned()),
        Ok(_) => Err(IN_USE.to_owned()),
        Err(error) => {
            Err(format!("exists and cannot be connected to: {error}; choose another path"))
        }
    }
}

const IN_USE: &str = "another program listens there; stop it, or choose another path";

fn cannot_look(error: &io::Error) -> String {
    format!("cannot look at it: {error}")
}

fn explain(error: &io::Error, path: &Path, parent: &Path) -> String {
    match error.raw_os_error() {
        Some(libc::ENAMETOOLONG) => {
            format!(
                "has {} bytes, but the path of a socket has at most {MAX_PATH}",
                path.as_os_str().len()
            )
        }
        Some(libc::ENOENT) => format!("there is no directory {}", parent.display()),
        // The file was created after the check.
        Some(libc::EADDRINUSE) => IN_USE.to_owned(),
        _ => format!("cannot listen: {error}"),
    }
}
