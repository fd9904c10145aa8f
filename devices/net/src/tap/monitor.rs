//! The kernel's notices of changed network interfaces (rtnetlink(7)).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A netlink socket that gets a message for each change of an interface of this thread's network
/// namespace: made, deleted, up, down, carrier.
#[derive(Debug)]
pub(super) struct Monitor(OwnedFd);

/// Notices that are taken at once. More make the event readable again.
const MAX_NOTICES: usize = 1000;

impl Monitor {
    /// Opens the socket. It needs no privilege.
    pub(super) fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nothing else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all zeroes is an address.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = libc::RTMGRP_LINK as u32;
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address outlives the call.
        if unsafe { libc::bind(fd, (&raw const address).cast(), length) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(socket))
    }

    /// Takes the notices. Returns whether there were any. Their content is not read, as they may be
    /// lost when many come: the caller asks for the state.
    pub(super) fn take(&self) -> bool {
        let mut any = false;
        for _ in 0..MAX_NOTICES {
            let mut start = [0_u8; 16];
            let fd = self.0.as_raw_fd();
            // SAFETY: the bytes outlive the call. The rest of a message is cut off.
            let read = unsafe { libc::recv(fd, start.as_mut_ptr().cast(), start.len(), 0) };
            if read < 0 && io::Error::last_os_error().raw_os_error() != Some(libc::ENOBUFS) {
                break;
            }
            any = true;
        }
        any
    }

    /// Returns the descriptor that is readable while there are notices.
    pub(super) fn event(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
