//! Waits for devices by means of the kernel's uevents.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Calls `found` immediately and after each uevent, until it returns a value or the timeout
/// expires.
pub fn wait_for<T>(limit: Duration, mut found: impl FnMut() -> Option<T>) -> io::Result<Option<T>> {
    // The socket exists before the first check, so no later event is missed.
    let socket = socket()?;
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = found() {
            return Ok(Some(value));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        // The uevent of a disk precedes the reading of its size, so check again after a while even
        // without another event.
        wait(&socket, left.min(Duration::from_millis(200)))?;
    }
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: the address is a valid structure of the length given; the descriptor is checked
    // before it is owned.
    unsafe {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let fd = libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_KOBJECT_UEVENT);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let mut address: libc::sockaddr_nl = std::mem::zeroed();
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = 1;
        let size = size_of::<libc::sockaddr_nl>() as u32;
        if libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(socket)
    }
}

fn wait(socket: &OwnedFd, limit: Duration) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let limit = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1);
    let mut buffer = [0_u8; 4096];
    // SAFETY: the structure and the buffer live through the calls, which use no more than the
    // lengths given.
    unsafe {
        if libc::poll(&raw mut poll, 1, limit) < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        // The content of the messages is irrelevant: the caller checks the state itself.
        while libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) > 0 {}
    }
    Ok(())
}
