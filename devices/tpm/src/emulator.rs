//! swtpm as seen by the device: powered on, and one command at a time.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::child::{self, Running, SwtpmOptions};
use crate::control::{BlobKind, Control, StateBlob};
use crate::error::TpmError;
use crate::folder::StateFolder;
use crate::registers::{BUFFER_SIZE, HEADER_SIZE};

/// The only locality of the interface.
const LOCALITY: u8 = 0;

/// The limits of waiting for swtpm.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For an answer on the control channel.
    pub control: Duration,
    /// For a TPM command. Making a large RSA key takes minutes on a slow host.
    pub command: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { control: Duration::from_secs(10), command: Duration::from_secs(300) }
    }
}

/// The action while a command runs, after the wake-up descriptor was signalled.
pub(crate) enum Interrupt {
    /// Continue to wait.
    Wait,
    /// Ask the TPM to cancel the command, and wait for its response.
    Cancel,
    /// Wait no longer.
    Quit,
}

/// A TPM that is powered on. Dropping it ends swtpm.
#[derive(Debug)]
pub struct Emulator {
    control: Control,
    data: UnixStream,
    timeouts: Timeouts,
    established: bool,
    // Dropped in this order: the program first, then the lock of its folder.
    child: Option<Running>,
    _folder: Option<StateFolder>,
}

impl Emulator {
    /// Locks the state's folder, starts swtpm and powers the TPM on. Starts no thread.
    ///
    /// # Errors
    /// [`TpmError`]. Nothing is left behind but the state's folder.
    pub fn start(options: &SwtpmOptions, timeouts: Timeouts) -> Result<Self, TpmError> {
        let folder = match &options.state {
            Some(path) => StateFolder::open(path)?,
            None => StateFolder::temporary()?,
        };
        let program = options.program.display().to_string();
        let (mut child, control) =
            child::start(&options.program, folder.path()).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => TpmError::NoProgram(program),
                _ => TpmError::Start { program, error },
            })?;
        let mut emulator = Self::over(control, timeouts).inspect_err(|_| {
            // The program has said why on standard error; wait for the end of its words.
            child.status();
        })?;
        emulator.child = Some(child);
        emulator._folder = Some(folder);
        Ok(emulator)
    }

    /// Powers on the TPM behind this control channel.
    pub(crate) fn over(control: UnixStream, timeouts: Timeouts) -> Result<Self, TpmError> {
        let system = |error| TpmError::System("sockets", error);
        let mut control = Control::new(control, timeouts.control).map_err(system)?;
        let (data, far) = UnixStream::pair().map_err(system)?;
        data.set_nonblocking(true).map_err(system)?;
        control.set_data_fd(&far)?;
        drop(far);
        control.check_capabilities()?;
        let mut emulator =
            Emulator { control, data, timeouts, established: false, child: None, _folder: None };
        emulator.power_cycle()?;
        Ok(emulator)
    }

    /// Powers the TPM off and on. Volatile state is lost, as on hardware.
    pub(crate) fn power_cycle(&mut self) -> Result<(), TpmError> {
        self.control.stop()?;
        match self.control.set_buffer_size(BUFFER_SIZE as u32)? as usize {
            BUFFER_SIZE => {}
            other => return Err(TpmError::Buffer(other as u32)),
        }
        self.control.init(true)?;
        self.control.set_locality(LOCALITY)?;
        self.established = self.control.established()?;
        Ok(())
    }

    /// Powers the TPM off.
    pub(crate) fn shutdown(&mut self) -> Result<(), TpmError> {
        self.control.shutdown()
    }

    /// Returns whether a dynamic root of trust was established at the last power-on.
    pub(crate) fn established(&self) -> bool {
        self.established
    }

    /// Clears the established flag.
    pub(crate) fn reset_established(&mut self) -> Result<(), TpmError> {
        self.control.reset_established(LOCALITY)?;
        self.established = self.control.established()?;
        Ok(())
    }

    /// Returns the process id of swtpm.
    pub fn process(&self) -> Option<u32> {
        self.child.as_ref().map(Running::id)
    }

    /// Returns a part of the TPM's state. No command may run.
    ///
    /// # Errors
    /// [`TpmError`]; the emulator is of no use after it, except for [`TpmError::Refused`].
    pub fn state_blob(&mut self, kind: BlobKind) -> Result<StateBlob, TpmError> {
        self.control.state_blob(kind)
    }

    /// Replaces the TPM's state by these parts, and continues from there: the TPM is not reset.
    ///
    /// # Errors
    /// [`TpmError`]. The TPM may be off after it.
    pub fn restore(&mut self, parts: &[(BlobKind, StateBlob)]) -> Result<(), TpmError> {
        self.control.stop()?;
        for (kind, blob) in parts {
            self.control.set_state_blob(*kind, blob)?;
        }
        self.control.init(false)
    }

    /// Waits until `wake` is readable.
    ///
    /// # Errors
    /// swtpm ended, or it sent what was not asked for.
    pub(crate) fn wait(&mut self, wake: RawFd) -> Result<(), TpmError> {
        let fds = [wake, self.data.as_raw_fd(), self.control.stream().as_raw_fd()];
        let [woken, data, control] = poll(fds, None)?;
        if data || control {
            return Err(self.ended_or_garbage());
        }
        debug_assert!(woken, "poll without a timeout returns with a descriptor");
        Ok(())
    }

    /// Runs one command. Returns its response, or `None` after [`Interrupt::Quit`]. `interrupted`
    /// is called when `wake` is readable, and must make it unreadable.
    ///
    /// # Errors
    /// swtpm ended, hangs, or answers what is no response. The emulator is of no use after it.
    pub(crate) fn execute(
        &mut self,
        command: &[u8],
        wake: RawFd,
        mut interrupted: impl FnMut() -> Interrupt,
    ) -> Result<Option<Vec<u8>>, TpmError> {
        const NAME: &str = "a TPM command";
        // The channel is empty between commands, so it takes a whole command at once.
        self.data.write_all(command).map_err(|error| TpmError::of(NAME, error))?;
        let end = Instant::now() + self.timeouts.command;
        let mut response = Response::default();
        while !response.is_whole() {
            let left = end.saturating_duration_since(Instant::now());
            let [woken, data] = poll([wake, self.data.as_raw_fd()], Some(left))?;
            if woken {
                match interrupted() {
                    Interrupt::Wait => {}
                    Interrupt::Cancel => self.control.cancel()?,
                    Interrupt::Quit => return Ok(None),
                }
            }
            if data {
                response.read(&mut self.data).map_err(|error| match error.kind() {
                    io::ErrorKind::InvalidData => TpmError::Garbage(NAME),
                    _ => TpmError::of(NAME, error),
                })?;
            }
            if !woken && !data {
                return Err(TpmError::Silent(NAME));
            }
        }
        self.control.settle_cancel()?;
        Ok(Some(response.bytes))
    }

    /// Returns why a channel is readable between commands.
    fn ended_or_garbage(&mut self) -> TpmError {
        const NAME: &str = "no command";
        let mut byte = [0; 1];
        let is_closed = |read: io::Result<usize>| matches!(read, Ok(0));
        let control = self.control.stream();
        // The control channel blocks, with a timeout; so it is only read when data is there.
        let control = poll([control.as_raw_fd()], Some(Duration::ZERO)).is_ok_and(|[on]| on)
            && is_closed((&mut &*control).read(&mut byte));
        if control || is_closed(self.data.read(&mut byte)) {
            TpmError::Ended(NAME)
        } else {
            TpmError::Garbage(NAME)
        }
    }
}

/// The bytes of a response that have arrived.
#[derive(Default)]
struct Response {
    bytes: Vec<u8>,
}

impl Response {
    /// Returns the size in the header, if the header is there.
    fn size(&self) -> Option<usize> {
        let header = self.bytes.first_chunk::<HEADER_SIZE>()?;
        let size = u32::from_be_bytes([header[2], header[3], header[4], header[5]]);
        Some(usize::try_from(size).unwrap_or(usize::MAX))
    }

    fn is_whole(&self) -> bool {
        self.size() == Some(self.bytes.len())
    }

    /// Reads what is there. `InvalidData`: it is no response.
    fn read(&mut self, from: &mut UnixStream) -> io::Result<()> {
        let mut bytes = [0; BUFFER_SIZE + 1];
        let read = match from.read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if is_again(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.bytes.extend_from_slice(&bytes[..read]);
        let valid = match self.size() {
            Some(size) => (HEADER_SIZE..=BUFFER_SIZE).contains(&size) && self.bytes.len() <= size,
            None => true,
        };
        if valid { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

fn is_again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Waits until a descriptor is readable or closed by its other end, without a timeout or for at
/// most that time. Returns which are.
pub(crate) fn poll<const N: usize>(
    fds: [RawFd; N],
    timeout: Option<Duration>,
) -> Result<[bool; N], TpmError> {
    let end = timeout.map(|timeout| Instant::now() + timeout);
    let mut entries = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    loop {
        // Rounded up, as a wait of 0 ms before the end would spin.
        let left = end.map_or(-1, |end| {
            let left = end.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
            i32::try_from(left).unwrap_or(i32::MAX)
        });
        // SAFETY: the array has N valid entries.
        let ready = unsafe { libc::poll(entries.as_mut_ptr(), N as libc::nfds_t, left) };
        match ready {
            0.. => return Ok(entries.map(|entry| entry.revents != 0)),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(TpmError::System("poll", error));
                }
            }
        }
    }
}
