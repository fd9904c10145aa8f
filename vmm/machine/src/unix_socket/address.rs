//! Socket calls that std does not offer: bind with a mode, connect with a timeout.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// Longest path of a socket in bytes: `sun_path` has 108, including the NUL.
pub(super) const MAX_PATH: usize = 107;

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 16;

/// Binds a non-blocking socket of mode 0600 to `path`, and listens.
///
/// The file never has a wider mode: Linux creates it with the mode of the socket itself.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    let address = address(path)?;
    let socket = socket(libc::SOCK_NONBLOCK)?;
    let fd = socket.as_raw_fd();
    // SAFETY: the descriptor is open.
    check(unsafe { libc::fchmod(fd, 0o600) })?;
    // SAFETY: `address` is a whole sockaddr_un that ends with a NUL, and the length is its size.
    check(unsafe { libc::bind(fd, (&raw const address).cast(), ADDRESS_LENGTH) })?;
    // SAFETY: the descriptor is an open socket.
    check(unsafe { libc::listen(fd, BACKLOG) })?;
    Ok(UnixListener::from(socket))
}

/// Connects to the socket at `path`. While its queue of clients is full, waits for at most
/// `timeout`; if that is zero, the call does not wait and the stream is non-blocking. `timeout` is
/// also the stream's write timeout.
///
/// # Errors
/// The system's error; `WouldBlock` when the queue stayed full.
pub fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let address = address(path)?;
    let stream = UnixStream::from(socket(if timeout.is_zero() { libc::SOCK_NONBLOCK } else { 0 })?);
    if !timeout.is_zero() {
        // SO_SNDTIMEO also limits connect on Unix sockets (unix_stream_connect in
        // net/unix/af_unix.c).
        stream.set_write_timeout(Some(timeout))?;
    }
    loop {
        // SAFETY: `address` is a whole sockaddr_un that ends with a NUL, and the length is its
        // size.
        let result = unsafe {
            libc::connect(stream.as_raw_fd(), (&raw const address).cast(), ADDRESS_LENGTH)
        };
        match check(result) {
            Ok(_) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

const ADDRESS_LENGTH: libc::socklen_t = size_of::<libc::sockaddr_un>() as libc::socklen_t;

fn address(path: &Path) -> io::Result<libc::sockaddr_un> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() > MAX_PATH {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    // An empty path would be an abstract address, which belongs to no directory.
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: all zeros is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    Ok(address)
}

fn socket(flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: socket takes numbers only.
    let fd = check(unsafe {
        libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | flags, 0)
    })?;
    // SAFETY: the descriptor is new and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
