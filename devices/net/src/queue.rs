//! One worker's queue to a backend.

use std::io;
use std::os::fd::RawFd;

use crate::{Frame, Pieces, VnetHeader};

/// One worker's access to a [`Backend`](crate::Backend). No call blocks.
pub trait Queue: Send {
    /// Sends one frame. The queue is done with the frame's memory when the call returns.
    ///
    /// # Errors
    /// [`SendError::Full`]: the frame was not taken; send it again when [`Queue::space_event`] is
    /// readable. All others: the frame is dropped and counted.
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError>;

    /// Writes the next frame to `space`, from its first byte on. `None`: no frame is there, and
    /// [`Queue::event`] becomes readable when one is. An event loop waits only after `None`, as a
    /// queue may hold frames that it has read ahead.
    ///
    /// # Errors
    /// [`ReceiveError::TooLong`]: one frame did not fit and is dropped; call again. All others:
    /// no frame comes until the link is up again.
    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError>;

    /// Returns a descriptor that is readable while a frame may be there to receive.
    /// [`Queue::receive`] clears it when it returns `None` or `LinkDown`. `None`: nothing is ever
    /// received.
    fn event(&self) -> Option<RawFd>;

    /// Returns a descriptor that is readable while the queue has space for the longest frame. An
    /// event loop waits for it only after [`SendError::Full`], or while [`Queue::has_unsent`]: it
    /// is readable nearly always. `None`: the queue is never full.
    fn space_event(&self) -> Option<RawFd> {
        None
    }

    /// Returns true if the queue took a frame of which a part waits for space: call
    /// [`Queue::flush`] when [`Queue::space_event`] is readable.
    fn has_unsent(&self) -> bool {
        false
    }

    /// Sends the parts that wait for space, as far as there is some. [`Queue::send`] does it too.
    fn flush(&mut self) {}

    /// Returns the totals since the queue was opened.
    fn counters(&self) -> Counters;
}

/// A received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Offset of the first byte of the frame in the space: 0, or 4 once
    /// [`vlan::strip`](crate::vlan::strip) has removed a tag.
    pub offset: usize,
    /// Bytes of the frame.
    pub length: usize,
    /// The state of the checksum, and the segmentation of a coalesced frame. Empty unless receive
    /// offloads are in use.
    pub header: VnetHeader,
}

/// The reason why a frame was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The backend has no space now. The frame is not counted as dropped.
    #[error("the backend is full")]
    Full,
    /// The link is down.
    #[error("the link is down")]
    LinkDown,
    /// The frame is shorter than an Ethernet header, or longer than the backend's limit.
    #[error("a frame of {0} bytes cannot be sent")]
    Length(usize),
    /// The offload request does not fit the frame.
    #[error("the offload request does not fit the frame")]
    Malformed,
    /// The backend lacks the offload that the frame asks for.
    #[error("the backend lacks the offload")]
    Unsupported,
    /// The system refused the frame, with this error number.
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    Os(i32),
}

/// The reason why no frame was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// A frame was longer than the space, and is dropped.
    #[error("a frame is longer than the space for it")]
    TooLong,
    /// The link is down.
    #[error("the link is down")]
    LinkDown,
    /// The system's error, by number.
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    Os(i32),
}

/// Totals of one queue. They wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames sent.
    pub sent_frames: u64,
    /// Bytes of the frames sent, without tags that were inserted.
    pub sent_bytes: u64,
    /// Frames received.
    pub received_frames: u64,
    /// Bytes of the frames received.
    pub received_bytes: u64,
    /// Calls of `send` that found the backend full.
    pub full: u64,
    /// Frames not sent as the link was down.
    pub send_link_down: u64,
    /// Frames not sent because of their length or offload request.
    pub send_invalid: u64,
    /// Frames that the system refused to send.
    pub send_failed: u64,
    /// Received frames that were longer than the space for them.
    pub receive_too_long: u64,
    /// Frames to this queue that were dropped as nothing received them in time.
    pub receive_overflow: u64,
    /// Received frames that the backend dropped as malformed.
    pub receive_invalid: u64,
}

impl Counters {
    /// Counts the result of a send of `length` bytes.
    pub(crate) fn count_send(&mut self, length: usize, result: Result<(), SendError>) {
        let counter = match result {
            Ok(()) => {
                self.sent_bytes = self.sent_bytes.wrapping_add(length as u64);
                &mut self.sent_frames
            }
            Err(SendError::Full) => &mut self.full,
            Err(SendError::LinkDown) => &mut self.send_link_down,
            Err(SendError::Length(_) | SendError::Malformed | SendError::Unsupported) => {
                &mut self.send_invalid
            }
            Err(SendError::Os(_)) => &mut self.send_failed,
        };
        *counter = counter.wrapping_add(1);
    }

    /// Counts the result of a receive.
    pub(crate) fn count_receive(&mut self, result: &Result<Option<Received>, ReceiveError>) {
        match result {
            Ok(Some(received)) => {
                self.received_frames = self.received_frames.wrapping_add(1);
                self.received_bytes = self.received_bytes.wrapping_add(received.length as u64);
            }
            Err(ReceiveError::TooLong) => {
                self.receive_too_long = self.receive_too_long.wrapping_add(1);
            }
            Ok(None) | Err(ReceiveError::LinkDown | ReceiveError::Os(_)) => {}
        }
    }
}
