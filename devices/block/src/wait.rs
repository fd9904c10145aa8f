//! Waiting for a file descriptor.

use std::os::fd::RawFd;

/// Blocks until `fd` is readable or a signal arrives. It may return early, so callers must check
/// again.
pub fn wait_for(fd: RawFd) {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd. The kernel reports a closed descriptor in it and does not
    // dereference it.
    unsafe { libc::poll(&raw mut entry, 1, -1) };
}
