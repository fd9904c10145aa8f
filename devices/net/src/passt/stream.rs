//! Frames in a stream, each after its length.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use crate::connection::Connection;
use crate::counted::Uncounted;
use crate::endpoint::Endpoint;
use crate::vectored::{Kind, Vectors};
use crate::vlan::Tag;
use crate::{
    Counters, Frame, MAX_FRAME, MIN_FRAME, Offloads, Pieces, ReceiveError, Received, SendError,
    VnetHeader,
};

/// Bytes of the length before each frame.
const PREFIX: usize = 4;

/// The longest frame to receive: a tag is part of it.
const LONGEST: usize = MAX_FRAME + Tag::LENGTH;

/// The longest frame to send, with its tag: passt takes a longer one for a stream that is out of
/// step (`ETH_MAX_MTU` in its `tap.c`).
const LONGEST_SENT: usize = 65_535;

/// Bytes that are read ahead: at least one frame with its length.
const INPUT: usize = 128 << 10;

/// The buffers of a stream while no queue is open: a queue that closes may leave a part of a frame,
/// which the next one goes on with.
pub(super) type Kept = Arc<Mutex<Option<Box<Buffers>>>>;

/// The most reads in one call, so that a stream of bytes that are no frames holds up no worker.
const MAX_READS: usize = 4;

pub(super) struct StreamQueue {
    connection: Arc<Connection>,
    kept: Kept,
    vectors: Vectors,
    buffers: Box<Buffers>,
    /// Frames of lengths that no frame has.
    invalid: u64,
}

/// The parts of frames on their way.
#[derive(Default)]
pub(super) struct Buffers {
    /// The connection's generation that they belong to.
    generation: u64,
    input: Input,
    /// The frame of which the socket took a part, with its length.
    output: Vec<u8>,
    /// Bytes of `output` that the socket took.
    written: usize,
}

impl StreamQueue {
    pub(super) fn open(connection: Arc<Connection>, kept: &Kept) -> io::Result<Self> {
        connection.open()?;
        let buffers = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut queue = Self {
            buffers: buffers.unwrap_or_else(|| Box::new(Buffers::new(connection.generation()))),
            connection,
            kept: Arc::clone(kept),
            vectors: Vectors::default(),
            invalid: 0,
        };
        queue.follow();
        Ok(queue)
    }

    fn write_frame(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        let tag = frame.tag.map_or(0, |_| Tag::LENGTH);
        frame.check(Offloads::empty(), LONGEST_SENT - tag)?;
        self.follow();
        if !self.connection.is_up() {
            return Err(SendError::LinkDown);
        }
        self.write_rest()?;
        let prefix = ((frame.pieces.len() + tag) as u32).to_be_bytes();
        let result = self.vectors.write(self.connection.socket(), Kind::Socket, &prefix, frame);
        let written = self.connection.sent(result)?;
        if written < PREFIX + tag + frame.pieces.len() {
            self.buffers.output.extend(prefix);
            frame.copy_to(&mut self.buffers.output);
            self.buffers.written = written;
        }
        Ok(())
    }

    /// Writes the unsent rest of the previous frame. `Full`: a rest remains.
    fn write_rest(&mut self) -> Result<(), SendError> {
        while let Some(rest) =
            self.buffers.output.get(self.buffers.written..).filter(|rest| !rest.is_empty())
        {
            let result = send(self.connection.socket(), rest);
            self.buffers.written += self.connection.sent(result)?;
        }
        self.buffers.output.clear();
        self.buffers.written = 0;
        Ok(())
    }

    fn next_frame(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        self.follow();
        let mut reads = 0;
        loop {
            match self.buffers.input.take() {
                Next::Frame(frame) if frame.len() < MIN_FRAME => {
                    self.invalid = self.invalid.wrapping_add(1);
                }
                Next::Frame(frame) if frame.len() > space.len() => {
                    return Err(ReceiveError::TooLong);
                }
                Next::Frame(frame) => {
                    let length = space.copy_from(0, frame);
                    let header = VnetHeader::default();
                    return Ok(Some(Received { offset: 0, length, header }));
                }
                // The stream is out of step: no later frame can be found.
                Next::Wrong => {
                    self.invalid = self.invalid.wrapping_add(1);
                    self.connection.lost();
                    self.buffers.input.clear();
                    return Err(ReceiveError::LinkDown);
                }
                // The event stays readable if there is more.
                Next::More if reads == MAX_READS => return Ok(None),
                Next::More if self.connection.is_up() => {
                    if self.read()? == 0 {
                        return Ok(None);
                    }
                    reads += 1;
                }
                Next::More => return Err(ReceiveError::LinkDown),
            }
        }
    }

    /// Reads ahead. 0: nothing is there.
    fn read(&mut self) -> Result<usize, ReceiveError> {
        let result = self.buffers.input.fill(self.connection.socket());
        match self.connection.received(result) {
            Ok(None) => Ok(0),
            Ok(Some(0)) => {
                self.connection.lost();
                self.buffers.input.clear();
                Err(ReceiveError::LinkDown)
            }
            Ok(Some(read)) => Ok(read),
            Err(error) => {
                if error == ReceiveError::LinkDown {
                    self.buffers.input.clear();
                }
                Err(error)
            }
        }
    }

    /// Discards partial frames after the socket was replaced.
    fn follow(&mut self) {
        let generation = self.connection.generation();
        if self.buffers.generation != generation {
            self.buffers.reset(generation);
        }
    }
}

impl Uncounted for StreamQueue {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        self.write_frame(frame)
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        self.next_frame(space)
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.connection.event())
    }

    fn space_event(&self) -> Option<RawFd> {
        Some(self.connection.space_event())
    }

    fn has_unsent(&self) -> bool {
        self.connection.is_up() && !self.buffers.output.is_empty()
    }

    fn flush(&mut self) {
        self.follow();
        if self.has_unsent() {
            // Without success, the event says when to try again.
            let _ = self.write_rest();
        }
    }

    fn add_own(&self, counters: &mut Counters) {
        counters.receive_invalid = self.invalid;
    }
}

impl Drop for StreamQueue {
    fn drop(&mut self) {
        self.connection.close();
        let unused = Box::<Buffers>::default();
        let buffers = std::mem::replace(&mut self.buffers, unused);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(buffers);
    }
}

impl Buffers {
    fn new(generation: u64) -> Self {
        let input = Input { bytes: vec![0; INPUT].into_boxed_slice(), start: 0, end: 0 };
        Self { generation, input, output: Vec::new(), written: 0 }
    }

    fn reset(&mut self, generation: u64) {
        self.generation = generation;
        self.input.clear();
        self.output.clear();
        self.written = 0;
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.input.end - self.input.start;
        let left = self.output.len().saturating_sub(self.written);
        write!(f, "Buffers({held} bytes received, {left} to send)")
    }
}

/// Bytes that were read ahead: `start..end`.
#[derive(Default)]
struct Input {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

/// The item at the start of the input.
enum Next<'a> {
    /// A frame, which is taken.
    Frame(&'a [u8]),
    /// A part of a frame, or nothing.
    More,
    /// A length that no frame has.
    Wrong,
}

impl Input {
    fn take(&mut self) -> Next<'_> {
        let held = &self.bytes[self.start..self.end];
        let Some((prefix, rest)) = held.split_first_chunk::<PREFIX>() else { return Next::More };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > LONGEST {
            return Next::Wrong;
        }
        let Some(frame) = rest.get(..length) else { return Next::More };
        self.start += PREFIX + length;
        Next::Frame(frame)
    }

    /// Reads available bytes into the free space, which is never empty: one frame fits.
    fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let space = &mut self.bytes[self.end..];
        let (fd, flags) = (socket.as_fd().as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: the bytes are ours and outlive the call.
        let read = unsafe { libc::recv(fd, space.as_mut_ptr().cast(), space.len(), flags) };
        let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
        self.end += read;
        Ok(read)
    }

    fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the bytes outlive the call, which reads them only.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
