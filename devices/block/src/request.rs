//! A request, the one object that travels from a device to a backend and back.

use crate::{IoBuffer, IoError};

/// The operation of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// From the medium into the buffer.
    Read,
    /// From the buffer to the medium. `fua`: durable before it is done.
    Write {
        /// Force unit access.
        fua: bool,
    },
    /// Everything that was done before this was submitted becomes durable.
    Flush,
    /// The guest does not need these bytes any longer: [`Geometry::discard`](crate::Geometry)
    /// defines their later content. A medium that cannot discard does nothing.
    Discard,
    /// These bytes read as zero afterwards, on every writable medium.
    WriteZeroes {
        /// Their space in the image may be freed.
        unmap: bool,
    },
}

impl Operation {
    /// Returns whether the operation moves bytes between memory and medium. The length of any other
    /// is only that of a range.
    #[inline]
    pub const fn moves_bytes(self) -> bool {
        matches!(self, Self::Read | Self::Write { .. })
    }
}

/// One request: an operation, its range on the medium and the memory that it moves.
///
/// It is made once, in a box, and that box travels: from the device through every layer of backends
/// and back in its [`Completion`], from which the device may take it for the next request. A layer
/// may change the fields on the way down (another file's offset, a tag of its own), and restores
/// them on the way up.
#[derive(Debug)]
pub struct Request {
    /// Chosen by the submitter, which finds it unchanged in the completion. No backend reads it.
    pub tag: u64,
    /// The operation of the request.
    pub operation: Operation,
    /// First byte on the medium: a multiple of the block size. The range is within the capacity. 0
    /// for a flush.
    pub offset: u64,
    /// Bytes of the range: whole blocks. 0 for a flush. Reads and writes have as many selected in
    /// `buffer`; discards and zeroes may have more than 4 GiB. A range that is not all within the
    /// capacity (it may shrink at any moment) fails with [`IoError::EndOfImage`].
    pub length: u64,
    /// The bytes to move: those that are selected in it. Only reads and writes have any.
    pub buffer: IoBuffer,
}

impl Request {
    /// Returns a request in the box in which it travels.
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

    /// Ends the request. `copied`: see [`Completion::copied`].
    #[inline]
    pub fn complete(self: Box<Self>, result: Result<(), IoError>, copied: u64) -> Completion {
        Completion { request: self, result, copied }
    }
}

/// A finished request.
#[derive(Debug)]
pub struct Completion {
    /// The request as it was submitted. Its memory is its owner's again.
    pub request: Box<Request>,
    /// All bytes moved, or the reason why not. After an error any part of them may have.
    pub result: Result<(), IoError>,
    /// Bytes that went through a buffer of the backend's own on their way between guest memory and
    /// medium: 0 where nothing is copied.
    pub copied: u64,
}
