//! Backends whose bytes lie somewhere in image files: a format says where, the raw backend moves them.
//!
//! No byte of the disk passes through this crate: a request becomes one or more requests to the
//! files' own queues, with parts of the same memory, so that whatever moves a raw image's bytes
//! (io_uring, O_DIRECT) moves these too.
//!
//! A request takes one of two ways. Where the format has all that it needs in memory
//! ([`Map::try_locate`] and its siblings), the worker that submits it hands it to the files' queues
//! immediately. Otherwise the image's metadata thread looks the place up ([`Map::locate`] and its
//! siblings, which may block), the answer comes back through the queue's event, and the request goes
//! on as any other. So a storage worker never waits for metadata.
//!
//! | module | what it knows |
//! |---|---|
//! | `extents` | where a part of the disk lies |
//! | `queue` | a worker's queue: requests to the disk become requests to its files |
//! | `job`, `thread`, `mailbox` | the lookups that may block, the thread that makes them, the way back |
//! | `changes` | which changes of structures are durable |
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
pub(crate) use extents::{Extent, Extents, InFile, Place};
use thread::MetadataThread;

/// How far a call that may block came. Each call does a bounded amount of work (some milliseconds,
/// one wait for the storage), so that other requests get their turn in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many bytes from the beginning of the range are dealt with, and their extents added. At
    /// least one, unless the range is empty. The rest of the range is asked for by another call.
    Done(u64),
    /// The same call is to be made again: it has more to do before the first byte is dealt with.
    Again,
    /// The same, after [`Map::barrier`].
    Barrier,
}

/// The result of a lookup that neither does I/O nor waits. `None`: it would have to.
pub(crate) type Known = Option<Result<(), IoError>>;

/// How a range loses its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clearing {
    /// Its space may be given back. Parts may keep their bytes if [`Geometry::discard`] does not
    /// promise zeroes.
    Discard,
    /// All of it reads as zero. `unmap`: its space may be given back, too.
    Zero { unmap: bool },
}

impl Clearing {
    /// Whether the space may be given back.
    pub(crate) fn may_unmap(self) -> bool {
        self != Self::Zero { unmap: false }
    }
}

/// A format: where the disk's bytes lie. Ranges are within the capacity, unless the disk shrinks at
/// the same moment.
///
/// All methods may be called at any time by any thread. Those named `try_...`, and those that say
/// so, neither do I/O nor wait. All others may block.
pub(crate) trait Map: Debug + Send + Sync {
    /// Returns what the disk is like. Does not block.
    fn geometry(&self) -> Geometry;

    /// See [`Backend::identity`]. Does not block.
    fn identity(&self) -> &[u8];

    /// The files that places name. Does not block.
    fn files(&self) -> &[Arc<dyn Backend>];

    /// Indices into [`Map::files`] of those that are written. A flush of the disk flushes each of
    /// them. At least one. Does not block.
    fn written_files(&self) -> &[usize] {
        &[0]
    }

    /// Whether a request may ever need the metadata thread. Does not block.
    fn may_block(&self) -> bool {
        true
    }

    /// Returns where the bytes to be read, or written if `write`, begin in a file, if it is known
    /// without I/O and without a wait that all of them lie there in one run. Most requests need no
    /// other call. `None`: [`Map::try_locate`] or [`Map::try_allocate`] follows, as for an empty
    /// range, one beyond the capacity and a write to a read-only disk.
    fn try_run(&self, write: bool, offset: u64, length: u64) -> Option<InFile> {
        let _ = (write, offset, length);
        None
    }

    /// Adds to `extents` where the bytes are, as far as that is known without I/O and without a wait.
    /// `None`: it is not, and what was added to `extents` is void. [`Map::locate`] then follows.
    fn try_locate(&self, offset: u64, length: u64, extents: &mut Extents) -> Known;

    /// The same for [`Map::allocate`].
    fn try_allocate(&self, offset: u64, length: u64, extents: &mut Extents) -> Known;

    /// The same for [`Map::clear`].
    fn try_clear(&self, how: Clearing, offset: u64, length: u64, extents: &mut Extents) -> Known {
        let _ = (how, offset, length, extents);
        None
    }

    /// Adds to `extents` where the bytes are. Read-only: nothing is allocated.
    ///
    /// # Errors
    /// The structures cannot be read.
    fn locate(&self, offset: u64, length: u64, extents: &mut Extents) -> Result<Step, IoError>;

    /// Adds to `extents` where the bytes are to be written: all [`Place::File`] of files that are
    /// written. Allocates space for those that have none, with the content that they show. Bytes
    /// that are then written there are on the disk.
    ///
    /// # Errors
    /// Why there is no space. What was allocated before stays.
    fn allocate(&self, offset: u64, length: u64, extents: &mut Extents) -> Result<Step, IoError>;

    /// Clears the bytes by structures alone where it can, and adds to `extents` the parts that have
    /// to be zeroed in the files.
    ///
    /// # Errors
    /// The structures cannot be changed. Parts of the range may read as zero already.
    fn clear(&self, how: Clearing, offset: u64, length: u64, extents: &mut Extents) -> Result<Step, IoError>;

    /// Makes durable, once for all, what calls that returned [`Step::Barrier`] have prepared.
    ///
    /// # Errors
    /// It is not durable. Every call that waited for the barrier fails with it.
    fn barrier(&self) -> Result<(), IoError> {
        Ok(())
    }

    /// Works ahead. Called on the metadata thread when no request waits for it.
    fn idle(&self) {}

    /// Whether a flush may begin immediately: no structure is kept in memory that the files lack.
    /// `false`: [`Map::write_back`] comes first, on the metadata thread. Does not block.
    fn is_written_back(&self) -> bool {
        true
    }

    /// Writes structures that only memory has to the files, so that a flush of the files makes them
    /// durable. [`Step::Done`] of 0 bytes: all that were there when it was first called are written.
    ///
    /// # Errors
    /// They cannot be written: the flush fails.
    fn write_back(&self) -> Result<Step, IoError> {
        Ok(Step::Done(0))
    }

    /// Returns the changes of structures, which a flush of the written files makes durable. A format
    /// whose structures never change has none. Does not block.
    fn changes(&self) -> &Changes {
        static NONE: Changes = Changes::new();
        &NONE
    }

    /// See [`Backend::resize`].
    ///
    /// # Errors
    /// See [`Backend::resize`].
    fn resize(&self, capacity: u64) -> Result<(), IoError>;
}

/// The backend of a format. Its metadata thread, if one was needed, ends with the last of it and of
/// its queues.
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

    /// Looks up the place of the first of `length` bytes, and how far it holds at least. May block.
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

/// How far [`Backend::extent`] looks at once.
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
        match first.place {
            Place::Zero => Ok(block::Extent { length: first.length, mapped: false }),
            Place::Memory { .. } => Ok(block::Extent { length: first.length, mapped: true }),
            Place::File { file, offset } => {
                let inner = self.map.files()[file].extent(offset)?;
                let length = if inner.length == 0 { first.length } else { inner.length.min(first.length) };
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

    /// Of all files.
    fn fixed_calls(&self) -> Option<u64> {
        self.map.files().iter().filter_map(|file| file.fixed_calls()).reduce(|one, other| one + other)
    }
}
