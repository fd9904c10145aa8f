//! The report port: a serial line used as a plain byte stream.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// The second serial port, unless the command line names another device.
pub const DEFAULT: &str = "/dev/ttyS1";

/// The guest's end of the report port. Clones write to the same port, one whole line at a time.
#[derive(Debug, Clone)]
pub struct Port {
    file: Arc<Mutex<File>>,
}

impl Port {
    /// Opens a device and, if it is a terminal, sets it to raw mode.
    pub fn open(path: &str) -> io::Result<Port> {
        let file = File::options().read(true).write(true).open(path)?;
        make_raw(&file)?;
        Ok(Port { file: Arc::new(Mutex::new(file)) })
    }

    /// Returns the lines that arrive.
    pub fn lines(&self) -> io::Result<impl Iterator<Item = io::Result<String>> + use<>> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).try_clone()?;
        Ok(BufReader::new(file).lines())
    }

    /// Sends one value as a line.
    pub fn send(&self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line)?;
        file.flush()
    }

    /// Waits until all data has been transmitted.
    pub fn drain(&self) {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the descriptor is open; tcdrain takes no pointer.
        unsafe { libc::tcdrain(file.as_raw_fd()) };
    }
}

fn make_raw(file: &File) -> io::Result<()> {
    let fd = file.as_raw_fd();
    // SAFETY: an all-zero termios is valid and both calls only use it during the call.
    unsafe {
        if libc::isatty(fd) != 1 {
            return Ok(());
        }
        let mut mode: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(fd, &raw mut mode) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::cfmakeraw(&raw mut mode);
        mode.c_cflag |= libc::CLOCAL | libc::CREAD;
        if libc::tcsetattr(fd, libc::TCSANOW, &raw const mode) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
