//! Unix stream sockets without blocking. The standard library can neither connect without waiting
//! for a full queue, nor move several pieces of memory that other code may change.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Connects to the socket that listens at `path`. Never waits.
///
/// # Errors
/// `WouldBlock`: the queue of the listening program is full. Others: see connect(2).
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no memory is passed.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    // SAFETY: a new descriptor that nothing else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero bytes are a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    // The last byte stays zero.
    if bytes.len() >= address.sun_path.len() || bytes.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address outlives the call, and ends with a zero.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(UnixStream::from(socket))
}

/// Pieces of memory for one system call.
#[derive(Debug, Default)]
pub(crate) struct Pieces(Vec<libc::iovec>);

impl Pieces {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds `len` bytes at `address`.
    pub(crate) fn push(&mut self, address: *mut u8, len: usize) {
        self.0.push(libc::iovec { iov_base: address.cast(), iov_len: len });
    }
}

/// Writes the pieces to the socket. Returns the number of bytes that it took.
///
/// # Errors
/// `WouldBlock`, `BrokenPipe` and others: see sendmsg(2).
///
/// # Safety
/// Each piece must be mapped memory during the call. Other code may change it meanwhile.
pub(crate) unsafe fn send(socket: &UnixStream, pieces: &mut Pieces) -> io::Result<usize> {
    let message = header(pieces);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the message and its pieces outlive the call; the caller guarantees the memory.
    retry(|| unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) })
}

/// Reads from the socket into the pieces. Returns the number of bytes; 0 at the end.
///
/// # Errors
/// `WouldBlock`, `ConnectionReset` and others: see recvmsg(2).
///
/// # Safety
/// As for [`send`], and the memory must be writable.
pub(crate) unsafe fn receive(socket: &UnixStream, pieces: &mut Pieces) -> io::Result<usize> {
    let mut message = header(pieces);
    // SAFETY: the message and its pieces outlive the call; the caller guarantees the memory. There
    // is no room for control data, so that no descriptor is received.
    retry(|| unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) })
}

/// Reads the first bytes that wait at the socket, and leaves them there.
///
/// # Errors
/// `WouldBlock` and others: see recv(2).
pub(crate) fn peek(socket: &UnixStream, bytes: &mut [u8]) -> io::Result<usize> {
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    let (address, len) = (bytes.as_mut_ptr().cast(), bytes.len());
    // SAFETY: `address` and `len` are those of `bytes`.
    retry(|| unsafe { libc::recv(socket.as_raw_fd(), address, len, flags) })
}

fn header(pieces: &mut Pieces) -> libc::msghdr {
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.0.as_mut_ptr();
    message.msg_iovlen = pieces.0.len() as _;
    message
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Repeats a call that a signal interrupted.
fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        if let Ok(number) = usize::try_from(call()) {
            return Ok(number);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
