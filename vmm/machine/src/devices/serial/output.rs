//! The host ends that receive a port's output.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};

use tracing::warn;
use vmm_sys_util::eventfd::EventFd;

/// The host end of a port's output. The vCPU thread that writes calls it.
pub(crate) trait Output: Send {
    /// Writes bytes. The output handles its own errors: the guest cannot react to them.
    fn write(&mut self, bytes: &[u8]);
}

/// An output that the event loop and the port both use.
pub(crate) type SharedOutput = Arc<Mutex<dyn Output>>;

/// An output that drops everything.
pub(crate) struct Null;

impl Output for Null {
    fn write(&mut self, _bytes: &[u8]) {}
}

/// A file. Writing ends at the first error: a full disk would otherwise cause one log line per
/// byte.
pub(crate) struct FileOutput {
    file: Option<File>,
}

impl FileOutput {
    /// Returns an output to `file`.
    pub(crate) fn new(file: File) -> FileOutput {
        FileOutput { file: Some(file) }
    }
}

impl Output for FileOutput {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(Err(error)) = self.file.as_mut().map(|file| file.write_all(bytes)) {
            warn!("serial output file: {error}; further output is lost");
            self.file = None;
        }
    }
}

/// Standard output. A write waits for the reader, because a pager or a pipe must receive every
/// byte, until the machine stops.
pub(crate) struct StdoutOutput {
    stop: Arc<EventFd>,
    broken: bool,
}

impl StdoutOutput {
    /// Returns an output that waits for standard output until `stop` is readable.
    pub(crate) fn new(stop: Arc<EventFd>) -> StdoutOutput {
        StdoutOutput { stop, broken: false }
    }
}

impl Output for StdoutOutput {
    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.broken {
            if !wait_writable(libc::STDOUT_FILENO, self.stop.as_raw_fd()) {
                return;
            }
            // SAFETY: the pointer and length are of a live slice.
            let written =
                unsafe { libc::write(libc::STDOUT_FILENO, bytes.as_ptr().cast(), bytes.len()) };
            match usize::try_from(written) {
                Ok(written) => bytes = &bytes[written.min(bytes.len())..],
                Err(_) => match io::Error::last_os_error().kind() {
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                    // The reader has closed the pipe: the guest continues without a console.
                    _ => self.broken = true,
                },
            }
        }
    }
}

/// Waits until `fd` is writable. Returns false if `stop` becomes readable first.
fn wait_writable(fd: RawFd, stop: RawFd) -> bool {
    loop {
        let mut fds = [
            libc::pollfd { fd, events: libc::POLLOUT, revents: 0 },
            libc::pollfd { fd: stop, events: libc::POLLIN, revents: 0 },
        ];
        // SAFETY: the array is live and its length is right.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
        if ready > 0 {
            // Error conditions on `fd` count as writable: the write reports them.
            return fds[0].revents != 0;
        }
        if ready < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_file_output_full_disk_stops_quietly() {
        let mut output = FileOutput::new(File::options().write(true).open("/dev/full").unwrap());
        output.write(b"x");
        assert!(output.file.is_none());
        output.write(b"y");
    }

    #[test]
    fn test_wait_writable_full_pipe_ends_on_stop() {
        let mut ends = [0; 2];
        // SAFETY: the array has room for two descriptors.
        assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK) }, 0);
        let block = [0u8; 4096];
        // SAFETY: the block is live; the loop ends when the pipe is full.
        while unsafe { libc::write(ends[1], block.as_ptr().cast(), block.len()) } > 0 {}
        let stop = EventFd::new(0).unwrap();
        stop.write(1).unwrap();
        assert!(!wait_writable(ends[1], stop.as_raw_fd()));
        // SAFETY: both descriptors belong to this test and are not used again.
        unsafe { (libc::close(ends[0]), libc::close(ends[1])) };
    }
}
