//! Waiting for file descriptors.

use std::os::fd::RawFd;
use std::time::Duration;

/// Returns the entry of poll(2) that waits for `fd` to be readable.
pub(crate) fn entry(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Blocks until one of `entries` is readable, a signal arrives, or `timeout` is over. Allocates no
/// memory. It may return early, so callers must check again.
pub(crate) fn poll(entries: &mut [libc::pollfd], timeout: Option<Duration>) {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the pointer and the count describe `entries`, `timeout` is null or valid, and there
    // is no signal mask. The kernel reports a closed descriptor and does not dereference it.
    unsafe {
        libc::ppoll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, timeout, std::ptr::null());
    }
}
