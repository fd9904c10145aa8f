//! Block storage for device backends: requests over guest memory, and the backends that serve them.
//!
//! A [`Backend`] is an open image that all channels share. The worker of each channel has a
//! [`Queue`] of its own to it, so a request takes no lock: [`Queue::submit`] takes a batch,
//! [`Queue::poll`] returns finished requests in any order. A queue may finish requests while it
//! submits them (memory) or later ([`Queue::event`] then says when to poll).
//!
//! A [`Request`] is one object from the device to the last backend and back. It owns its memory
//! ([`IoBuffer`]: guest pages as iovecs), so no backend can outlive it.
//!
//! | module | backends |
//! |---|---|
//! | [`raw`] | a file or block device, through io_uring, threads or synchronous calls |
//! | [`RamDisk`], [`NullDisk`] | memory, and nothing at all, for people who measure |
//! | [`Throttle`] | limits the rate of another backend |
//! | [`Faulty`] | makes another backend fail or stall, for tests |
//! | `conformance` (feature) | the checks that every backend must pass |
//!
//! Knows no SCSI, no bus and no device.

mod buffer;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod error;
mod faulty;
mod merged;
mod null;
mod ram;
pub mod raw;
mod request;
mod throttle;
pub mod wait;

use std::fmt::Debug;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use buffer::IoBuffer;
pub use error::IoError;
pub use faulty::{Fault, Faulty, Hold};
pub use null::{MAX_CAPACITY as MAX_NULL_CAPACITY, NullDisk};
pub use ram::RamDisk;
pub use raw::{
    CacheMode, FixedError, FixedMemory, IoMode, LockedFile, OpenError, RawFile, RawOptions,
};
pub use request::{Completion, Operation, Request};
pub use throttle::{Limits, Rate, Throttle, ThrottleStats};

/// One open medium.
pub trait Backend: Debug + Send + Sync {
    /// Returns the disk's properties. Only the capacity may change while it is open, and that only
    /// by [`Backend::resize`].
    fn geometry(&self) -> Geometry;

    /// Bytes that tell this medium from others, the same each time it is opened: the default names
    /// of its disk follow from them.
    fn identity(&self) -> &[u8];

    /// A queue for one worker.
    ///
    /// # Errors
    /// The system's: out of file descriptors, memory or threads.
    fn queue(&self) -> io::Result<Box<dyn Queue>>;

    /// Returns whether the bytes from `offset` on take up room, and how far that holds. May be
    /// called at any time by any thread; the answer may be old when it arrives. A backend that
    /// cannot tell has room taken up everywhere.
    ///
    /// This call may block: it may read the image's structures and ask the file system. A storage
    /// worker must not make it on its own thread.
    ///
    /// # Errors
    /// The image cannot be asked.
    fn extent(&self, offset: u64) -> Result<Extent, IoError> {
        Ok(Extent { length: self.geometry().capacity.saturating_sub(offset), mapped: true })
    }

    /// Makes the medium `capacity` bytes long (a multiple of the block size): what is new reads as
    /// zero, what is cut off is gone. Block devices take what size they have by now, if it is
    /// that one. Requests in flight beyond a new end fail.
    ///
    /// # Errors
    /// [`IoError::Unsupported`] when the medium has one size for ever; else why it failed: nothing
    /// has changed then.
    fn resize(&self, capacity: u64) -> Result<(), IoError> {
        let _ = capacity;
        Err(IoError::Unsupported)
    }

    /// Requests on queues that are made from now on need not look up the pages of `memory`, the
    /// guest's. Others go as ever.
    ///
    /// # Errors
    /// [`IoError::Unsupported`]: no io_uring moves this medium's bytes.
    fn use_fixed(&self, memory: &Arc<FixedMemory>) -> Result<(), IoError> {
        let _ = memory;
        Err(IoError::Unsupported)
    }

    /// Calls to the kernel that moved bytes from or to such memory; one for each request that is
    /// not split or continued. `None` where there is none.
    fn fixed_calls(&self) -> Option<u64> {
        None
    }
}

/// A stretch of a medium, all of one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes from the offset that was asked about; at least one, except past the end.
    pub length: u64,
    /// It takes up room where the image lies. What does not reads as zero.
    pub mapped: bool,
}

/// The properties of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes; at least one block.
    pub capacity: u64,
    /// Smallest unit of reading and writing.
    pub block_size: BlockSize,
    /// Bytes that are best written together and aligned; a power of two.
    pub physical_block_size: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// Writes are not durable before a flush.
    pub write_cache: bool,
    /// The medium turns.
    pub rotational: bool,
    /// The effect of [`Operation::Discard`]; `None`: none, so that guests need not use it.
    pub discard: Option<Discard>,
}

/// Bytes in a logical block. Guests support these two. Serialised as its number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum BlockSize {
    /// 512 bytes.
    B512,
    /// 4096 bytes ("4Kn").
    B4096,
}

impl BlockSize {
    /// In bytes.
    pub const fn bytes(self) -> u32 {
        1 << self.shift()
    }

    /// Log2 of the bytes.
    pub const fn shift(self) -> u32 {
        match self {
            Self::B512 => 9,
            Self::B4096 => 12,
        }
    }
}

impl TryFrom<u32> for BlockSize {
    type Error = String;

    fn try_from(bytes: u32) -> Result<Self, String> {
        match bytes {
            512 => Ok(Self::B512),
            4096 => Ok(Self::B4096),
            _ => Err(format!("a block size of {bytes} is not offered; write 512 or 4096")),
        }
    }
}

impl From<BlockSize> for u32 {
    fn from(size: BlockSize) -> u32 {
        size.bytes()
    }
}

/// How a medium gives back room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discard {
    /// Bytes that are given back as a whole, aligned to as much: a power of two, at least one
    /// block.
    pub granularity: u32,
    /// What was discarded reads as zero, all of it, whatever the alignment; else its content is
    /// anybody's guess.
    pub zeroes: bool,
}

/// One worker's way to a [`Backend`]. Dropping it first waits until nothing touches any request's
/// memory.
pub trait Queue: Send {
    /// Takes all of `requests`, in order, and leaves the empty vector for the next batch. Each
    /// comes back through [`Queue::poll`] exactly once. Requests of one batch may run in any
    /// order, so that whoever needs an order waits in between.
    fn submit(&mut self, requests: &mut Vec<Box<Request>>);

    /// Adds all finished requests to `done`. Never waits.
    fn poll(&mut self, done: &mut Vec<Completion>);

    /// Readable when [`Queue::poll`] has something that was not finished in `submit`; polling
    /// clears it. `None`: submit finishes everything.
    fn event(&self) -> Option<RawFd>;
}

/// Makes everything durable that was written to `backend`, and waits for it. Nothing to do where
/// nothing can be written.
///
/// # Errors
/// The result of a request.
pub fn flush(backend: &dyn Backend) -> Result<(), IoError> {
    if backend.geometry().read_only {
        return Ok(());
    }
    let mut queue = backend.queue().map_err(|error: io::Error| IoError::from(error))?;
    let mut done = Vec::new();
    queue.submit(&mut vec![Request::flush(0)]);
    loop {
        queue.poll(&mut done);
        match (done.pop(), queue.event()) {
            (Some(done), _) => return done.result,
            (None, Some(event)) => wait::wait_for(event),
            (None, None) => return Err(IoError::Os(libc::EIO)),
        }
    }
}
