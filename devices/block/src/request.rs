//! The request: one object that travels from a device to a backend and back.

use crate::{IoBuffer, IoError};

/// The operation of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads from the backend into the buffer.
    Read,
    /// Writes from the buffer to the backend.
    Write {
        /// Force unit access: the data is durable before the request completes.
        fua: bool,
    },
    /// Makes all writes durable that completed before this request was submitted.
    Flush,
    /// Discards bytes that the guest does not need any more. [`Geometry::discard`](crate::Geometry)
    /// defines their later content. A backend without discards does nothing.
    Discard,
    /// Makes bytes read as zero. Every writable backend supports it.
    WriteZeroes {
        /// The space in the image may be freed.
        unmap: bool,
    },
}

impl Operation {
    /// Returns true if the operation moves bytes between memory and backend. The length of other
    /// operations is only that of their range.
    #[inline]
    pub const fn moves_bytes(self) -> bool {
        matches!(self, Self::Read | Self::Write { .. })
    }
}

/// A request: an operation, its range on the disk and its buffer.
///
/// It is allocated once, in a box. The box travels from the device through all layers of backends
/// and back in its [`Completion`], and the device may reuse it. A layer may change the fields on
/// the way down (another file's offset, a tag of its own), and must restore them on the way up.
#[derive(Debug)]
pub struct Request {
    /// Request tag of the submitter, unchanged in the completion. Backends do not interpret it.
    pub tag: u64,
    /// The operation of the request.
    pub operation: Operation,
    /// First byte on the disk: a multiple of the block size, within the capacity. 0 for a flush.
    pub offset: u64,
    /// Bytes of the range: whole blocks, 0 for a flush. For reads and writes it equals the
    /// selection of `buffer`. Discards and zeroes may exceed 4 GiB. A range beyond the capacity,
    /// which may shrink at any time, fails with [`IoError::EndOfImage`].
    pub length: u64,
    /// The bytes to move: the selection. It is empty except for reads and writes.
    pub buffer: IoBuffer,
}

impl Request {
    /// Returns a new boxed request.
    pub fn new(
        tag: u64,
        operation: Operation,
        offset: u64,
        length: u64,
        buffer: IoBuffer,
    ) -> Box<Self> {
        Box::new(Self { tag, operation, offset, length, buffer })
    }

    /// Returns a flush.
    pub fn flush(tag: u64) -> Box<Self> {
        Self::new(tag, Operation::Flush, 0, 0, IoBuffer::empty())
    }

    /// Completes the request. `copied`: see [`Completion::copied`].
    #[inline]
    pub fn complete(self: Box<Self>, result: Result<(), IoError>, copied: u64) -> Completion {
        Completion { request: self, result, copied }
    }
}

/// A finished request.
#[derive(Debug)]
pub struct Completion {
    /// The request as submitted. Its memory belongs to the submitter again.
    pub request: Box<Request>,
    /// Success of the whole range, or an error. After an error any part of the bytes may have
    /// moved.
    pub result: Result<(), IoError>,
    /// Bytes copied through an intermediate buffer of the backend; 0 for direct transfers.
    pub copied: u64,
}
