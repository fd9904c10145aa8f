//! Unix sockets. The standard library has no sequenced packets.

use std::ffi::c_int;
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const FLAGS: c_int = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;

/// Returns a connected pair of sockets of `kind` (`SOCK_STREAM`, `SOCK_SEQPACKET`).
pub(crate) fn pair(kind: c_int) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the call writes two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind | FLAGS, 0, fds.as_mut_ptr()) })?;
    let [a, b] = fds;
    // SAFETY: two new descriptors that nothing else owns.
    Ok(unsafe { (OwnedFd::from_raw_fd(a), OwnedFd::from_raw_fd(b)) })
}

/// Connects to a socket that listens at `path`.
pub(crate) fn connect(path: &Path, kind: c_int) -> io::Result<OwnedFd> {
    let (socket, address) = (new(kind)?, address(path)?);
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address outlives the call, and ends with a zero.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(socket)
}

/// Listens at `path`, which must not exist. Other users cannot connect.
pub(crate) fn listen(path: &Path, kind: c_int) -> io::Result<OwnedFd> {
    let (socket, address) = (new(kind)?, address(path)?);
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address outlives the call, and ends with a zero.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    // Nothing can connect before the socket listens.
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    // SAFETY: no memory is passed.
    check(unsafe { libc::listen(socket.as_raw_fd(), 1) })?;
    Ok(socket)
}

/// Accepts a connection, if one waits.
pub(crate) fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    let (address, length) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: no address is asked for.
    let fd = check(unsafe { libc::accept4(listener.as_raw_fd(), address, length, FLAGS) })?;
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Returns the value of a socket's option that is a number (`SO_TYPE`, `SO_DOMAIN`).
pub(crate) fn option(socket: &OwnedFd, option: c_int) -> io::Result<c_int> {
    let (mut value, mut length): (c_int, libc::socklen_t) = (0, 4);
    let (out, size) = ((&raw mut value).cast(), &raw mut length);
    // SAFETY: the call writes one int.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, out, size) })?;
    Ok(value)
}

fn new(kind: c_int) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, kind | FLAGS, 0) })?;
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address(path: &Path) -> io::Result<libc::sockaddr_un> {
    // SAFETY: all zeroes is an address.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    // One zero stays at the end.
    if bytes.is_empty() || bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        let most = address.sun_path.len() - 1;
        let text = format!("the path of a socket has 1 to {most} bytes: {}", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok(address)
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
