//! Listening Unix sockets: private from the first moment, never in the place of another file,
//! removed at the end.
//!
//! The control socket and the serial ports' sockets are bound here.

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

/// Longest wait for the lock of the socket's folder: another SynthVM holds it for microseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// A socket that cannot be listened on: path, why, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", .path.display())]
pub struct SocketError {
    path: PathBuf,
    message: String,
}

/// A listening socket, non-blocking, mode 0600. Its name is removed when this is dropped.
#[derive(Debug)]
pub struct ListeningSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the name that was made here: a name that is another's by now stays.
    identity: (u64, u64),
}

impl ListeningSocket {
    /// Listens at `path`. A socket of this user on which no program listens any more is replaced.
    ///
    /// # Errors
    /// A program listens there; the file there is no socket, or another user's; it is a dead socket
    /// and another program keeps the folder locked; the folder is absent or may not be written
    /// to; the path is too long for a socket (107 bytes).
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        Self::bind_within(path, LOCK_TIMEOUT)
    }

    /// As [`ListeningSocket::bind`], with another limit to the wait for the folder's lock.
    fn bind_within(path: &Path, timeout: Duration) -> Result<Self, SocketError> {
        let fail = |message: String| SocketError { path: path.to_owned(), message };
        let parent =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Two programs may find the same dead socket: the second must not remove what the first has
        // just made. Any user who may read the folder can hold this lock for ever, so it is
        // waited for only where there is a socket to remove, and not for long.
        let mut lock = FolderLock::take(parent, Duration::ZERO);
        if lock.is_busy() && matches!(occupant(path), Ok(Occupant::DeadSocket)) {
            lock = FolderLock::take(parent, timeout);
        }
        match occupant(path).map_err(fail)? {
            Occupant::None => {}
            Occupant::DeadSocket if lock.is_busy() => {
                return Err(fail(format!(
                    "no program listens there any more, but another program keeps the folder {} locked; \
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

    /// Returns the path at which it listens.
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

/// Looks whether a socket can be bound at `path`, as far as that depends on the file that is there.
///
/// # Errors
/// The file must stay: why, and what to do.
pub fn check(path: &Path) -> Result<(), String> {
    occupant(path).map(drop)
}

/// The file at the path of a socket that is to be bound.
enum Occupant {
    None,
    /// A socket of this user on which no program listens.
    DeadSocket,
}

/// Looks at the file at `path`, which is never followed if it is a symbolic link.
///
/// # Errors
/// The file must stay: why, and what to do.
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
        // Removed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Occupant::None),
        // Full of clients that wait to be accepted: a program listens, however slow it is.
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
        // It came since it was looked for.
        Some(libc::EADDRINUSE) => IN_USE.to_owned(),
        _ => format!("cannot listen: {error}"),
    }
}
