//! The serial console in this terminal.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::str::FromStr;

use synthvm_machine::RawTerminal;

use crate::cli::args::ConsoleArgs;
use crate::cli::exit::{Exit, Failure};
use crate::control::{Client, Request, StopSignal, block_stop_signals, stop_signals};

/// Bytes per read.
const CHUNK: usize = 16 << 10;

/// The key that leaves the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct DetachKey(Option<u8>);

impl FromStr for DetachKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.as_bytes() {
            b"none" => Ok(DetachKey(None)),
            [b'^', letter @ (b'@'..=b'_' | b'a'..=b'z')] => {
                Ok(DetachKey(Some(letter.to_ascii_uppercase() & 0x1F)))
            }
            _ => Err("a control key such as ^] or ^A, or none, is expected".to_owned()),
        }
    }
}

impl fmt::Display for DetachKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(byte) => write!(f, "Ctrl-{}", char::from(byte | 0x40)),
            None => f.write_str("none"),
        }
    }
}

/// Connects this terminal to a serial port until the user leaves or the machine ends.
pub(super) fn attach(args: &ConsoleArgs) -> Result<Exit, Failure> {
    let client = Client::connect(&args.socket)?;
    let stream = client.into_stream(&Request::OpenSerial { port: args.port })?;
    let internal = |error: io::Error| Failure::text(Exit::Internal, format!("console: {error}"));
    // From here on a signal ends the loop below, which leaves by the same path as the key.
    block_stop_signals().map_err(internal)?;
    let signals = stop_signals().map_err(internal)?;
    let is_terminal = io::stdin().is_terminal();
    let terminal = is_terminal.then(RawTerminal::enter).transpose().map_err(internal)?;
    let key = args.detach_key;
    if is_terminal && key.0.is_some() {
        eprintln!("Connected to serial port {}. {key} leaves.\r", args.port);
    }
    let end = carry(stream, &signals, is_terminal.then_some(key).and_then(|key| key.0));
    drop(terminal);
    match end.map_err(internal)? {
        End::Left => eprintln!("\nLeft the console."),
        End::Machine => {
            if is_terminal {
                eprintln!("\nThe machine has ended the connection.");
            }
        }
        End::NobodyReads => {}
        End::Signal(number) => return Ok(Exit::Signal(number)),
    }
    Ok(Exit::Success)
}

/// The reasons for the end of a console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The user pressed the key, or hung up the terminal.
    Left,
    /// The machine ended, or dropped this client.
    Machine,
    /// The reader of standard output has closed it.
    NobodyReads,
    /// A stop signal.
    Signal(i32),
}

/// Carries bytes between standard input and output and the port.
fn carry(mut stream: UnixStream, signals: &File, key: Option<u8>) -> io::Result<End> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut buffer = [0; CHUNK];
    let mut input_open = true;
    loop {
        let fds = [
            Some(stream.as_raw_fd()),
            Some(signals.as_raw_fd()),
            input_open.then_some(libc::STDIN_FILENO),
        ];
        let [from_machine, signal, from_user] = wait_readable(fds)?;
        if signal {
            return Ok(End::Signal(StopSignal::read(signals)?.number()));
        }
        if from_machine {
            let length = match stream.read(&mut buffer) {
                Ok(0) => return Ok(End::Machine),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(End::Machine);
                }
                Err(error) => return Err(error),
            };
            match output.write_all(&buffer[..length]).and_then(|()| output.flush()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(End::NobodyReads);
                }
                Err(error) => return Err(error),
            }
        }
        if from_user {
            let length = input.read(&mut buffer)?;
            let typed = &buffer[..length];
            let end = key.and_then(|key| typed.iter().position(|byte| *byte == key));
            // The machine may have ended in the meantime; the next read says so.
            let _ = stream.write_all(&typed[..end.unwrap_or(length)]);
            if end.is_some() || (length == 0 && key.is_some()) {
                return Ok(End::Left);
            }
            if length == 0 {
                input_open = false;
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
    }
}

/// Waits until one of the descriptors is readable or has ended, and returns which are.
fn wait_readable<const N: usize>(fds: [Option<RawFd>; N]) -> io::Result<[bool; N]> {
    // poll(2) ignores negative descriptors.
    let mut polled =
        fds.map(|fd| libc::pollfd { fd: fd.unwrap_or(-1), events: libc::POLLIN, revents: 0 });
    loop {
        // SAFETY: the array is live and its length is right.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, -1) };
        match ready {
            0.. => return Ok(polled.map(|one| one.revents != 0)),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_detach_key_is_a_control_key_or_none() {
        for (text, byte, shown) in
            [("^]", Some(0x1D), "Ctrl-]"), ("^a", Some(1), "Ctrl-A"), ("^A", Some(1), "Ctrl-A")]
        {
            let key = DetachKey::from_str(text).unwrap();
            assert_eq!((key.0, key.to_string()), (byte, shown.to_owned()));
        }
        assert_eq!(DetachKey::from_str("none").unwrap().0, None);
        for text in ["", "]", "^", "^]]", "^1", "ctrl-a"] {
            assert!(DetachKey::from_str(text).is_err(), "{text}");
        }
    }
}
