//! Moves input from a descriptor into a port, no faster than the guest reads it.

use std::io;
use std::os::fd::RawFd;

use super::SerialPort;

/// What became of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// Nothing more now: wait for the descriptor, or for the guest to read.
    Later,
    /// End of file or error: nothing will come any more.
    Ended,
}

/// Reads from `fd` while the port has room and bytes are there. `filter` sees the bytes first and
/// may take some out.
///
/// Works on blocking descriptors too: nothing is read that `poll` has not promised.
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

/// Returns whether poll(2) reports one of `events` for `fd`, or an error, without waiting.
pub(super) fn is_ready(fd: RawFd, events: libc::c_short) -> bool {
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one live entry; a timeout of 0 returns immediately.
    (unsafe { libc::poll(&raw mut poll, 1, 0) }) > 0
}
