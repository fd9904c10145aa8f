//! Backends whose bytes lie in image files: a format locates them, the raw backend moves them.
//!
//! No byte of the disk passes through this crate. A request becomes subrequests to the files' own
//! queues, with parts of the same memory. So the code that moves a raw image's bytes (io_uring,
//! O_DIRECT) moves these too.
//!
//! A request takes one of two paths. If the format has all that it needs in memory
//! ([`Map::try_run`], [`Map::try_locate`] and its siblings), the worker that submits the request
//! hands it to the files' queues immediately. Otherwise the image's metadata thread looks up the
//! location ([`Map::locate`] and its siblings, which may block), the answer comes back through the
//! queue's event, and the request continues on the first path. So a storage worker never waits for
//! metadata.
//!
//! | module | content |
//! |---|---|
//! | `extents` | locations of parts of the disk |
//! | `queue` | a worker's queue: requests to the disk become subrequests to its files |
//! | `job`, `thread`, `mailbox` | lookups that may block, their thread and answers |
//! | `changes` | the count of changes that are not durable |
//! | `events` | the events of several queues as one descriptor |

mod changes;
mod events;
mod extents;
mod job;
mod mailbox;
mod queue;
#[cfg(test)]
mod tests;
mod thread;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use synthvm_block::{self as block, Backend, FixedMemory, Geometry, IoError, Queue};

pub(crate) use changes::Changes;
pub(crate) use extents::{Extent, Extents, InFile, Location};
use thread::MetadataThread;

/// The progress of a call that may block. Each call does a bounded amount of work (some
/// milliseconds, one wait for the storage), so that other requests can run in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This many bytes from the beginning of the range are finished, and their extents are added.
    /// At least one byte, unless the range is empty. Another call handles the rest of the range.
    Done(u64),
    /// The same call must be made again: it has more work to do before the first byte is finished.
    Again,
    /// The same call must be made again after [`Map::barrier`].
    Barrier,
}

/// The result of a call that may block.
pub(crate) type StepResult = Result<Step, IoError>;

/// The result of a lookup that neither does I/O nor waits. `None`: the lookup would have to.
pub(crate) type Known = Option<Result<(), IoError>>;

/// The ways to remove the data of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clearing {
    /// Its space may be released. Parts may keep their bytes if [`Geometry::discard`] does not
    /// promise zeroes.
    Discard,
    /// All of it reads as zero. `unmap`: its space may be released, too.
    Zero { unmap: bool },
}

impl Clearing {
    /// Returns whether the space may be released.
    pub(crate) fn may_unmap(self) -> bool {
        self != Self::Zero { unmap: false }
    }
}

/// A format, which locates the disk's bytes. Ranges are within the capacity, unless the disk
/// shrinks concurrently.
///
/// Any thread may call any method at any time. Methods named `try_...`, and those that say so,
/// neither do I/O nor wait. All others may block.
pub(crate) trait Map: Debug + Send + Sync {
    /// Returns the disk's geometry. Does not block.
    fn geometry(&self) -> Geometry;

    /// Returns the identity of the image, as in [`Backend::identity`]. Does not block.
    fn identity(&self) -> &[u8];

    /// Returns the files that [`Location::File`] names. Does not block.
    fn files(&self) -> &[Arc<dyn Backend>];

    /// Returns the indices into [`Map::files`] of the files that are written, at least one. A flush
    /// of the disk flushes each of them. Does not block.
    fn written_files(&self) -> &[usize] {
        &[0]
    }

    /// Returns whether a request may ever need the metadata thread. Does not block.
    fn may_block(&self) -> bool {
        true
    }

    /// Returns the location in a file of the bytes of a read, or of a write if `write`, if all of
    /// them lie there in one run and this is known without I/O and without a wait. Most requests
    /// need no other call. `None`: [`Map::try_locate`] or [`Map::try_allocate`] follows. So it does
    /// for an empty range, a range beyond the capacity and a write to a read-only disk.
    fn try_run(&self, write: bool, offset: u64, length: u64) -> Option<InFile> {
        let _ = (write, offset, length);
        None
    }

    /// Adds the locations of the bytes to `extents`, if all are known without I/O and without a
    /// wait. `None`: a location is not known, the additions to `extents` are void, and
    /// [`Map::locate`] follows.
    fn try_locate(&self, offset: u64, length: u64, extents: &mut Extents) -> Known;

    /// Adds the locations that [`Map::allocate`] would add, like [`Map::try_locate`].
    fn try_allocate(&self, offset: u64, length: u64, extents: &mut Extents) -> Known;

    /// Clears the bytes like [`Map::clear`], without I/O and without a wait, like
    /// [`Map::try_locate`].
    fn try_clear(&self, how: Clearing, offset: u64, length: u64, extents: &mut Extents) -> Known {
        let _ = (how, offset, length, extents);
        None
    }

    /// Adds the locations of the bytes to `extents`. Read-only: allocates nothing.
    ///
    /// # Errors
    /// The structures cannot be read.
    fn locate(&self, offset: u64, length: u64, extents: &mut Extents) -> StepResult;

    /// Adds to `extents` the locations to write the bytes to, all of them [`Location::File`] of
    /// files that are written. Allocates space for bytes that have none and fills it with the
    /// content that the disk shows there. Bytes that are then written to the locations are on the
    /// disk.
    ///
    /// # Errors
    /// The storage has no space, or another error. Space that was allocated before stays.
    fn allocate(&self, offset: u64, length: u64, extents: &mut Extents) -> StepResult;

    /// Clears the bytes by structures alone where it can, and adds to `extents` the parts that have
    /// to be zeroed in the files.
    ///
    /// # Errors
    /// The structures cannot be changed. Parts of the range may read as zero already.
    fn clear(&self, how: Clearing, offset: u64, length: u64, extents: &mut Extents) -> StepResult;

    /// Makes the preparations of all calls that returned [`Step::Barrier`] durable, by one sync.
    ///
    /// # Errors
    /// The preparations are not durable. Every call that waited for the barrier fails with this
    /// error.
    fn barrier(&self) -> Result<(), IoError> {
        Ok(())
    }

    /// Prepares for later requests. The metadata thread calls it when no request waits.
    fn idle(&self) {}

    /// Returns whether a flush may begin immediately, because the files contain all structures.
    /// `false`: [`Map::write_back`] must run first, on the metadata thread. Does not block.
    fn is_written_back(&self) -> bool {
        true
    }

    /// Writes the structures that are only in memory to the files, so that a flush of the files
    /// makes them durable. [`Step::Done`] of 0 bytes: all structures that existed at the first call
    /// are written.
    ///
    /// # Errors
    /// The structures cannot be written, so the flush fails.
    fn write_back(&self) -> StepResult {
        Ok(Step::Done(0))
    }

    /// Returns the changes of structures, which a flush of the written files makes durable. A
    /// format with constant structures has none. Does not block.
    fn changes(&self) -> &Changes {
        static NONE: Changes = Changes::new();
        &NONE
    }

    /// Changes the capacity, as in [`Backend::resize`].
    ///
    /// # Errors
    /// See [`Backend::resize`].
    fn resize(&self, capacity: u64) -> Result<(), IoError>;
}

/// The backend of a format. Its metadata thread, if it was started, ends with the last reference to
/// the backend and its queues.
#[derive(Debug)]
pub(crate) struct Mapped {
    map: Arc<dyn Map>,
    thread: Arc<MetadataThread>,
}

impl Mapped {
    /// Returns the backend of `map`.
    pub(crate) fn new(map: Arc<dyn Map>) -> Self {
        Self { thread: Arc::new(MetadataThread::new(Arc::clone(&map))), map }
    }

    /// Looks up the location of the first of `length` bytes, and a lower bound for the length of
    /// its extent. May block.
    fn first_extent(&self, offset: u64, length: u64) -> Result<Option<Extent>, IoError> {
        let mut extents = Extents::default();
        if length == 0 {
            return Ok(None);
        }
        if let Some(result) = self.map.try_locate(offset, length, &mut extents) {
            result?;
            return Ok(extents.as_slice().first().cloned());
        }
        extents.clear();
        let mut done = 0;
        while done < length && extents.as_slice().len() < 2 {
            match self.map.locate(offset + done, length - done, &mut extents)? {
                Step::Done(bytes) => done += bytes,
                Step::Again => {}
                Step::Barrier => self.map.barrier()?,
            }
        }
        Ok(extents.as_slice().first().cloned())
    }
}

/// Bytes that [`Backend::extent`] inspects.
const LOOK_AHEAD: u64 = 1 << 30;

impl Backend for Mapped {
    fn geometry(&self) -> Geometry {
        self.map.geometry()
    }

    fn identity(&self) -> &[u8] {
        self.map.identity()
    }

    fn queue(&self) -> io::Result<Box<dyn Queue>> {
        let (map, thread) = (Arc::clone(&self.map), Arc::clone(&self.thread));
        Ok(Box::new(queue::MappedQueue::new(map, thread)?))
    }

    fn extent(&self, offset: u64) -> Result<block::Extent, IoError> {
        let left = self.map.geometry().capacity.saturating_sub(offset);
        let Some(first) = self.first_extent(offset, left.min(LOOK_AHEAD))? else {
            return Ok(block::Extent { length: 0, mapped: false });
        };
        match first.location {
            Location::Zero => Ok(block::Extent { length: first.length, mapped: false }),
            Location::Memory { .. } => Ok(block::Extent { length: first.length, mapped: true }),
            Location::File { file, offset } => {
                let inner = self.map.files()[file].extent(offset)?;
                let length =
                    if inner.length == 0 { first.length } else { inner.length.min(first.length) };
                Ok(block::Extent { length, mapped: inner.mapped })
            }
        }
    }

    fn resize(&self, capacity: u64) -> Result<(), IoError> {
        self.map.resize(capacity)
    }

    fn use_fixed(&self, memory: &Arc<FixedMemory>) -> Result<(), IoError> {
        self.map.files().iter().try_for_each(|file| file.use_fixed(memory))
    }

    /// Returns the sum for all files.
    fn fixed_calls(&self) -> Option<u64> {
        self.map
            .files()
            .iter()
            .filter_map(|file| file.fixed_calls())
            .reduce(|one, other| one + other)
    }
}
