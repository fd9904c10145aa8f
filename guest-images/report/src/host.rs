//! The protocol between the test host's process 1 and the program that started the host.
//!
//! Frames are sent in both directions: one byte of kind, four bytes of length (little-endian), then
//! the payload. A single channel keeps the order of output and events, and no kernel message can
//! interrupt it.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// The name of the virtio-serial port that carries the frames.
pub const PORT_NAME: &str = "synthvm.test-host";

/// The largest payload in bytes (an environment may be large; output is sent in smaller pieces).
pub const MAX_PAYLOAD: u32 = 4 << 20;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes that the command wrote to its standard output.
    Stdout(Vec<u8>),
    /// Bytes that the command wrote to its standard error.
    Stderr(Vec<u8>),
    /// An event in the host.
    Event(Event),
    /// A request to the host.
    Request(Request),
}

/// An event that the host reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Everything is mounted and every module loaded.
    Ready {
        /// The host's kernel release.
        kernel: String,
        /// Processors online.
        cpus: u32,
        /// Whether `/dev/kvm` exists.
        kvm: bool,
    },
    /// The host could not be made ready.
    Broken {
        /// The failed operation.
        why: String,
    },
    /// The command could not be started.
    NotStarted {
        /// The system's message.
        why: String,
        /// Whether the program does not exist.
        not_found: bool,
    },
    /// The command ended. All of its output has been sent before this event.
    Exited {
        /// The exit status, or 128 + the signal that ended the command.
        code: i32,
    },
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The current directory.
    pub dir: String,
}

/// The setup of the host: `setup.json` in its initial RAM disk, because it would be too long for
/// the kernel command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Folders below `/tmp` that must stay visible although the host has a new, empty `/tmp`.
    pub keep: Vec<String>,
    /// The mount point of the writable share.
    pub results: String,
    /// The folder with the modules of the host's kernel, as seen by the command.
    pub modules: String,
}

impl Frame {
    /// Writes one frame.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let (kind, payload) = match self {
            Frame::Stdout(bytes) => (1_u8, bytes.clone()),
            Frame::Stderr(bytes) => (2, bytes.clone()),
            Frame::Event(event) => (3, serde_json::to_vec(event)?),
            Frame::Request(request) => (4, serde_json::to_vec(request)?),
        };
        let length = u32::try_from(payload.len()).ok().filter(|n| *n <= MAX_PAYLOAD);
        let Some(length) = length else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "frame too long"));
        };
        let mut bytes = Vec::with_capacity(payload.len() + 5);
        bytes.push(kind);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&payload);
        to.write_all(&bytes)?;
        to.flush()
    }

    /// Reads one frame. Returns `None` at a clean end.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Frame>> {
        let mut head = [0_u8; 5];
        loop {
            match from.read(&mut head[..1]) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        from.read_exact(&mut head[1..])?;
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length);
        if length > MAX_PAYLOAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
        }
        let mut payload = Vec::new();
        from.take(u64::from(length)).read_to_end(&mut payload)?;
        if payload.len() as u64 != u64::from(length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match kind {
            1 => Ok(Some(Frame::Stdout(payload))),
            2 => Ok(Some(Frame::Stderr(payload))),
            3 => Ok(Some(Frame::Event(serde_json::from_slice(&payload)?))),
            4 => Ok(Some(Frame::Request(serde_json::from_slice(&payload)?))),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("frame of unknown kind {kind}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_frames_written_are_read_back_in_order() {
        let frames = [
            Frame::Stdout(b"a\0b\n".to_vec()),
            Frame::Stderr(Vec::new()),
            Frame::Event(Event::Exited { code: 7 }),
            Frame::Request(Request {
                argv: vec!["x".into()],
                env: vec![("K".into(), "V".into())],
                dir: "/".into(),
            }),
        ];
        let mut bytes = Vec::new();
        for frame in &frames {
            frame.write(&mut bytes).unwrap();
        }
        let mut from = bytes.as_slice();
        for frame in &frames {
            assert_eq!(Frame::read(&mut from).unwrap().as_ref(), Some(frame));
        }
        assert_eq!(Frame::read(&mut from).unwrap(), None);
    }

    #[test]
    fn test_frame_cut_short_is_an_error_not_an_end() {
        let mut bytes = Vec::new();
        Frame::Stdout(b"hello".to_vec()).write(&mut bytes).unwrap();
        for length in 1..bytes.len() {
            assert!(Frame::read(&mut &bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn test_frame_of_unknown_kind_or_length_is_refused() {
        assert!(Frame::read(&mut [9, 0, 0, 0, 0].as_slice()).is_err());
        assert!(Frame::read(&mut [1, 255, 255, 255, 255].as_slice()).is_err());
    }
}
