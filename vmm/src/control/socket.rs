//! The socket's place in the file system: taken without pushing anyone out, private from its first moment, and given back.

use std::ffi::CString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A socket that cannot be listened on: path, why, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", .path.display())]
pub struct SocketError {
    path: PathBuf,
    message: String,
}

/// A listening socket, non-blocking, mode 0600. Its name is removed when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the name that we made: a name that is not ours any more stays.
    identity: (u64, u64),
}

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 16;

impl ControlSocket {
    /// Listens at `path`. A socket that nobody listens on any more (its owner was killed) is removed first.
    ///
    /// # Errors
    /// Somebody listens there; something that is no socket stands there; the directory is absent or closed to us; the path is too
    /// long for a socket (107 bytes).
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let fail = |message: String| SocketError { path: path.to_owned(), message };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Of two programs that find the same dead socket, the second must not remove what the first has just made.
        let _turn = File::open(parent).ok().filter(|directory| {
            // SAFETY: flock takes a descriptor and a number; the descriptor is open.
            unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX) == 0 }
        });
        match std::fs::symlink_metadata(path) {
            Ok(metadata) => remove_stale(path, &metadata).map_err(fail)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(format!("cannot look at it: {error}"))),
        }
        let listener = listen(path).map_err(|error| fail(explain(&error, path, parent)))?;
        let metadata =
            std::fs::symlink_metadata(path).map_err(|error| fail(format!("cannot look at it: {error}")))?;
        Ok(ControlSocket { listener, path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) })
    }

    /// What to accept clients from.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let is_ours = |metadata: Metadata| (metadata.dev(), metadata.ino()) == self.identity;
        if std::fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn remove_stale(path: &Path, metadata: &Metadata) -> Result<(), String> {
    if !metadata.file_type().is_socket() {
        return Err("exists and is not a socket; choose another path".to_owned());
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)
            .map_err(|error| format!("nobody listens there, but it cannot be removed: {error}")),
        Ok(_) => Err("another program listens there; stop it, or choose another path".to_owned()),
        Err(error) => Err(format!("exists and cannot be connected to: {error}; choose another path")),
    }
}

fn explain(error: &io::Error, path: &Path, parent: &Path) -> String {
    match error.raw_os_error() {
        Some(libc::ENAMETOOLONG) => {
            format!("has {} bytes, but the path of a socket has at most {MAX_PATH}", path.as_os_str().len())
        }
        Some(libc::ENOENT) => format!("there is no directory {}", parent.display()),
        _ => format!("cannot listen: {error}"),
    }
}

/// `sun_path` has 108 bytes, one of which ends it.
const MAX_PATH: usize = 107;

/// As `UnixListener::bind`, but the name never exists with a wider mode than 0600: Linux takes the mode of the socket itself for the
/// name that bind makes.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() > MAX_PATH {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    let name = CString::new(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket takes numbers only.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the descriptor is open.
    check(unsafe { libc::fchmod(fd, 0o600) })?;
    // SAFETY: all zeros is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(name.as_bytes_with_nul()) {
        *to = from.cast_signed();
    }
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: `address` is a whole sockaddr_un that ends with a NUL, and `length` is its size.
    check(unsafe { libc::bind(fd, (&raw const address).cast(), length) })?;
    // SAFETY: the descriptor is an open socket.
    check(unsafe { libc::listen(fd, BACKLOG) })?;
    Ok(UnixListener::from(socket))
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
