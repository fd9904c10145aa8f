//! Sleeping until a file descriptor is readable.

use std::os::fd::RawFd;

/// Sleeps until `fd` is readable or a signal comes. Spurious returns are fine: callers look again.
pub fn wait_for(fd: RawFd) {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd. A descriptor that was closed meanwhile is reported, not
    // dereferenced.
    unsafe { libc::poll(&raw mut entry, 1, -1) };
}
