//! Moves input from a descriptor to a port, no faster than the guest reads it.

use std::io;
use std::os::fd::RawFd;

use super::SerialPort;

/// The state of the source after pumping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// No more input now: wait for the descriptor, or for the guest to read.
    Later,
    /// End of file or error: the source gives no more input.
    Ended,
}

/// Reads from `fd` while the port has space and input is available. `filter` sees the bytes first
/// and may remove some.
///
/// Blocking descriptors are supported: a read follows only a `poll` that reports input.
pub(super) fn pump(port: &SerialPort, fd: RawFd, mut filter: impl FnMut(&mut Vec<u8>)) -> Pumped {
    loop {
        let room = port.room();
        if room == 0 || !is_ready(fd, libc::POLLIN) {
            return Pumped::Later;
        }
        let mut bytes = vec![0; room];
        // SAFETY: the buffer is live and its length is right.
        let read = unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) };
        match usize::try_from(read) {
            Ok(0) => return Pumped::Ended,
            Ok(read) => {
                bytes.truncate(read);
                filter(&mut bytes);
                port.receive(&bytes);
            }
            Err(_) => match io::Error::last_os_error().kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Pumped::Later,
                _ => return Pumped::Ended,
            },
        }
    }
}

/// Returns whether poll(2) reports one of `events`, or an error, for `fd`. Does not wait.
pub(super) fn is_ready(fd: RawFd, events: libc::c_short) -> bool {
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one live entry; a timeout of 0 returns immediately.
    (unsafe { libc::poll(&raw mut poll, 1, 0) }) > 0
}
