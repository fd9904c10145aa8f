//! Sleeping until a file descriptor is readable.

use std::os::fd::RawFd;

/// Sleeps until one of `fds` is readable, a signal comes, or `timeout` milliseconds are over.
pub fn wait_for(fds: &[RawFd], timeout: Option<u16>) {
    let mut polls: Vec<_> = fds.iter().copied().map(entry).collect();
    poll(&mut polls, timeout);
}

/// What poll(2) is to look at.
pub fn entry(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// As [`wait_for`], without allocating. Spurious returns are fine: callers look at everything.
pub fn poll(entries: &mut [libc::pollfd], timeout: Option<u16>) {
    let timeout = timeout.map_or(-1, libc::c_int::from);
    // SAFETY: the pointer and the count describe `entries`. A descriptor that was closed meanwhile is reported, not dereferenced.
    unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, timeout) };
}
