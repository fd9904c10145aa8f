//! Stream sockets of AF_VSOCK, in a guest and in the host.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The addresses of the host, and of any end (linux/vm_sockets.h).
const HOST: u32 = 2;
const ANY: u32 = u32::MAX;

/// A stream socket of AF_VSOCK. The file of a connection reads and writes its bytes.
#[derive(Debug)]
pub struct Socket(pub File);

impl Socket {
    fn new() -> io::Result<Self> {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        // SAFETY: no memory is passed.
        Self::from_call(unsafe { libc::socket(libc::AF_VSOCK, kind, 0) })
    }

    /// Connects to `port` of the host.
    pub fn connect(port: u32) -> io::Result<Self> {
        let (socket, address) = (Self::new()?, address(HOST, port));
        let size = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address outlives the call.
        check(unsafe { libc::connect(socket.fd(), (&raw const address).cast(), size) })?;
        Ok(socket)
    }

    /// Listens at `port`, for connections from any address.
    pub fn listen(port: u32) -> io::Result<Self> {
        let (socket, address) = (Self::new()?, address(ANY, port));
        let size = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address outlives the call.
        check(unsafe { libc::bind(socket.fd(), (&raw const address).cast(), size) })?;
        // SAFETY: no memory is passed.
        check(unsafe { libc::listen(socket.fd(), 4096) })?;
        Ok(socket)
    }

    /// Accepts a connection.
    pub fn accept(&self) -> io::Result<Self> {
        let (none, flags) = (std::ptr::null_mut(), libc::SOCK_CLOEXEC);
        // SAFETY: no address is asked for.
        Self::from_call(unsafe { libc::accept4(self.fd(), none, none.cast(), flags) })
    }

    /// Ends one or both directions: `how` as for shutdown(2).
    pub fn shutdown(&self, how: libc::c_int) -> io::Result<()> {
        // SAFETY: no memory is passed.
        check(unsafe { libc::shutdown(self.fd(), how) })
    }

    fn from_call(fd: libc::c_int) -> io::Result<Self> {
        check(fd.min(0))?;
        // SAFETY: a new descriptor that nothing else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }.into()))
    }

    pub(crate) fn fd(&self) -> libc::c_int {
        self.0.as_raw_fd()
    }
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: all-zero bytes are a valid sockaddr_vm.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
