//! Image files, as the SCSI layer sees them.
//!
//! A [`Backend`] is one open medium, shared by all channels. Each channel's worker has its own [`Queue`] to it, so nothing is locked on
//! the way of a request: [`Queue::submit`] takes a batch, [`Queue::poll`] gives back what is finished, in any order. A queue may finish
//! requests while it submits them (the file is read on the worker's thread) or later (then [`Queue::event`] says when to look).
//!
//! Requests own their memory ([`IoBuffer`]: guest pages as iovecs) from submit until they come back, so that no backend can outlive it.

mod buffer;
#[cfg(test)]
mod conformance;
mod error;
mod faulty;
mod ram;
pub mod raw;

use std::fmt::Debug;
use std::io;
use std::os::fd::RawFd;

pub use buffer::IoBuffer;
pub use error::IoError;
pub use faulty::{Fault, Faulty, Hold};
pub use ram::RamDisk;
pub use raw::{OpenError, RawFile};

use crate::scsi::BlockSize;

/// One open medium.
pub trait Backend: Debug + Send + Sync {
    /// What it is like. Must not change while it is open.
    fn geometry(&self) -> Geometry;

    /// Bytes that tell this medium from others, the same each time it is opened: the default names of its disk follow from them.
    fn identity(&self) -> &[u8];

    /// A queue for one worker.
    ///
    /// # Errors
    /// The system's: out of file descriptors, memory or threads.
    fn queue(&self) -> io::Result<Box<dyn Queue>>;
}

/// What a medium is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes; at least one block.
    pub capacity: u64,
    /// Smallest unit of reading and writing.
    pub block_size: BlockSize,
    /// Bytes that are best written at once and aligned; a power of two.
    pub physical_block_size: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// What was written is not durable before a flush.
    pub write_cache: bool,
    /// The medium turns.
    pub rotational: bool,
}

/// One worker's way to a [`Backend`]. Dropping it first waits until nothing touches any request's memory.
pub trait Queue: Send {
    /// Takes all of `requests`, in order, and leaves the empty vector for the next batch. Each comes back through [`Queue::poll`] exactly
    /// once. Requests of one batch may run in any order, so that whoever needs an order waits in between.
    fn submit(&mut self, requests: &mut Vec<IoRequest>);

    /// Adds all finished requests to `done`. Never waits.
    fn poll(&mut self, done: &mut Vec<IoDone>);

    /// Readable when [`Queue::poll`] has something that was not finished in `submit`; polling clears it. `None`: submit finishes everything.
    fn event(&self) -> Option<RawFd>;
}

/// What to do.
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
}

/// One request.
#[derive(Debug)]
pub struct IoRequest {
    /// Comes back in [`IoDone::id`].
    pub id: u32,
    /// What to do.
    pub operation: Operation,
    /// First byte on the medium: a multiple of the block size. The range is within the capacity. 0 for a flush.
    pub offset: u64,
    /// The bytes to move: those that were selected in it, whole blocks. Empty for a flush.
    pub buffer: Box<IoBuffer>,
}

/// One finished request.
#[derive(Debug)]
pub struct IoDone {
    /// From [`IoRequest::id`].
    pub id: u32,
    /// All bytes moved, or why not. After an error any part of them may have.
    pub result: Result<(), IoError>,
    /// The request's memory, for its owner to use again.
    pub buffer: Box<IoBuffer>,
}
