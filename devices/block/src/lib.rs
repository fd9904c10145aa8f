//! Block storage for device backends: requests over guest memory, and the backends that serve them.
//!
//! A [`Backend`] is an open image, shared by all channels. The worker of each channel has its own
//! [`Queue`] to it, so a request takes no lock: [`Queue::submit`] takes a batch, [`Queue::poll`]
//! returns finished requests in any order. A queue finishes requests in `submit` (memory) or later,
//! and [`Queue::event`] then becomes readable.
//!
//! A [`Request`] is one object that travels from the device to the last backend and back. It owns
//! its buffer ([`IoBuffer`]: guest pages as iovecs), so no backend can use the memory after the
//! request has ended.
//!
//! | module | backends |
//! |---|---|
//! | [`raw`] | a file or block device, through io_uring, threads or synchronous calls |
//! | [`RamDisk`], [`NullDisk`] | host memory, and no storage at all, for measurements |
//! | [`Throttle`] | limits the rate of another backend |
//! | [`Faulty`] | makes another backend fail or stall, for tests |
//! | [`Wrapper`] | the base of backends around another one |
//! | `conformance` (feature) | the checks that every backend must pass |
//!
//! This crate does not depend on SCSI, the bus or any device.

mod buffer;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod error;
mod faulty;
mod immediate;
mod merged;
mod null;
mod ram;
pub mod raw;
mod request;
mod throttle;
pub mod wait;
mod wrapper;

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
pub use wrapper::Wrapper;

/// An open disk image, or another storage behind a disk.
pub trait Backend: Debug + Send + Sync {
    /// Returns the disk's properties. Only [`Backend::resize`] changes them, and only the capacity.
    fn geometry(&self) -> Geometry;

    /// Returns bytes that identify the backend, the same at each open. The default names of the
    /// disk are derived from them.
    fn identity(&self) -> &[u8];

    /// Returns a new queue, for one worker.
    ///
    /// # Errors
    /// The system's: out of file descriptors, memory or threads.
    fn queue(&self) -> io::Result<Box<dyn Queue>>;

    /// Returns whether the bytes at `offset` have allocated space, and for how many bytes that is
    /// so. May be called at any time by any thread, and the answer may be outdated on return. A
    /// backend without such information reports allocated space everywhere.
    ///
    /// This call may block: it may read the image's metadata and query the file system. A storage
    /// worker must not make it on its own thread.
    ///
    /// # Errors
    /// The metadata cannot be read.
    fn extent(&self, offset: u64) -> Result<Extent, IoError> {
        Ok(Extent { length: self.geometry().capacity.saturating_sub(offset), mapped: true })
    }

    /// Changes the capacity to `capacity` bytes (a multiple of the block size). New bytes read as
    /// zero; bytes beyond a smaller capacity are lost. A block device succeeds only if it already
    /// has this size. Requests in flight beyond a new end fail.
    ///
    /// # Errors
    /// [`IoError::Unsupported`] if the backend has a fixed size; otherwise the reason of the
    /// failure. Nothing has changed then.
    fn resize(&self, capacity: u64) -> Result<(), IoError> {
        let _ = capacity;
        Err(IoError::Unsupported)
    }

    /// Registers the guest's memory `memory` with the kernel for all queues opened later. Their
    /// requests in `memory` need no page lookup; other requests work as before.
    ///
    /// # Errors
    /// [`IoError::Unsupported`] if the backend does not use io_uring.
    fn use_fixed(&self, memory: &Arc<FixedMemory>) -> Result<(), IoError> {
        let _ = memory;
        Err(IoError::Unsupported)
    }

    /// Returns the number of system calls that used registered buffers: one for each request that
    /// is not split or continued. `None` without registered buffers.
    fn fixed_calls(&self) -> Option<u64> {
        None
    }
}

/// A range of a disk with one allocation state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes from the queried offset; at least one, except past the end.
    pub length: u64,
    /// The range has allocated space. A range without reads as zero.
    pub mapped: bool,
}

/// The properties of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size in bytes; at least one block.
    pub capacity: u64,
    /// Logical block size: the unit of all reads and writes.
    pub block_size: BlockSize,
    /// Physical block size in bytes, a power of two. Aligned writes of this size are the most
    /// efficient.
    pub physical_block_size: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// Writes are not durable before a flush.
    pub write_cache: bool,
    /// The storage is a rotating disk.
    pub rotational: bool,
    /// The effect of [`Operation::Discard`]; `None` if it has none, so that guests need not use it.
    pub discard: Option<Discard>,
}

/// The logical block size, one of the two that guests support. Serialised as the number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum BlockSize {
    /// 512 bytes.
    B512,
    /// 4096 bytes ("4Kn").
    B4096,
}

impl BlockSize {
    /// Returns the size in bytes.
    pub const fn bytes(self) -> u32 {
        1 << self.shift()
    }

    /// Returns log2 of the size in bytes.
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

/// The properties of a backend's discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discard {
    /// Granularity and alignment of freed space in bytes: a power of two, at least one block.
    pub granularity: u32,
    /// All discarded bytes read as zero, whatever their alignment. Otherwise their content is
    /// undefined.
    pub zeroes: bool,
}

/// A worker's queue of requests to a [`Backend`]. Dropping it waits until no request's memory is in
/// use.
pub trait Queue: Send {
    /// Takes all of `requests`, in order, and leaves the vector empty for the next batch.
    /// [`Queue::poll`] returns each request exactly once. Requests in flight may run in any order:
    /// a submitter that needs an order must wait for completions.
    fn submit(&mut self, requests: &mut Vec<Box<Request>>);

    /// Adds all finished requests to `done`. Never blocks.
    fn poll(&mut self, done: &mut Vec<Completion>);

    /// Returns the descriptor that is readable if [`Queue::poll`] has requests that were not
    /// finished in `submit`. Polling clears it. `None` if `submit` finishes all requests.
    fn event(&self) -> Option<RawFd>;
}

/// Makes all completed writes to `backend` durable. Blocks until then. Does nothing for a read-only
/// backend.
///
/// # Errors
/// The flush failed, or no queue could be opened.
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
