//! Media whose bytes lie somewhere in image files: a format says where, the raw backend moves them.
//!
//! No byte of the disk passes through this crate: a request becomes one or more requests to the files' own queues, with parts of the same
//! memory, so that whatever moves a raw image's bytes (io_uring, O_DIRECT) moves these too.

mod events;
mod queue;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use synthvm_storage::backend::{self, Backend, FixedMemory, Geometry, IoError, Queue};

/// Where a stretch of the disk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Bytes; at least one.
    pub(crate) length: u64,
    /// Where.
    pub(crate) place: Place,
}

/// Where bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In [`Map::files`]`[file]` from `offset` on.
    File {
        /// Which.
        file: usize,
        /// First byte.
        offset: u64,
    },
    /// Nowhere: they read as zero.
    Zero,
}

/// A format: where the disk's bytes lie. Ranges are within the capacity. All may be called at any time by any thread.
pub(crate) trait Map: Debug + Send + Sync {
    /// What the disk is like.
    fn geometry(&self) -> Geometry;

    /// See [`Backend::identity`].
    fn identity(&self) -> &[u8];

    /// The files that places name. Only the first is ever written.
    fn files(&self) -> &[Arc<dyn Backend>];

    /// Adds to `extents` where the bytes are.
    fn locate(&self, offset: u64, length: u64, extents: &mut Extents) -> Result<(), IoError>;

    /// Adds to `extents` where the bytes are to be written: all in the first file. Takes room for those that have none.
    fn allocate(&self, offset: u64, length: u64, extents: &mut Extents) -> Result<(), IoError>;

    /// Makes the bytes read as zero by structures alone where it can, and adds to `extents` what has to be zeroed in the first file.
    fn clear(&self, offset: u64, length: u64, unmap: bool, extents: &mut Extents) -> Result<(), IoError>;

    /// Structures were written that are not known to be durable. [`Map::flushing`] and a flush of the first file make them so.
    fn is_unflushed(&self) -> bool;

    /// A flush of the first file begins. What it returns is handed to [`Map::flushed`] when it has succeeded.
    fn flushing(&self) -> u64;

    /// The flush succeeded.
    fn flushed(&self, token: u64);

    /// See [`Backend::resize`].
    fn resize(&self, capacity: u64) -> Result<(), IoError>;
}

/// Stretches in order, neighbours merged.
#[derive(Debug, Default)]
pub(crate) struct Extents(Vec<Extent>);

impl Extents {
    /// Adds one at the end.
    pub(crate) fn push(&mut self, length: u64, place: Place) {
        if length == 0 {
            return;
        }
        if let Some(last) = self.0.last_mut() {
            let continues = match (last.place, place) {
                (Place::Zero, Place::Zero) => true,
                (Place::File { file: a, offset: at }, Place::File { file: b, offset }) => {
                    a == b && at + last.length == offset
                }
                _ => false,
            };
            if continues {
                last.length += length;
                return;
            }
        }
        self.0.push(Extent { length, place });
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn as_slice(&self) -> &[Extent] {
        &self.0
    }
}

/// The medium of a format.
#[derive(Debug)]
pub(crate) struct Mapped {
    map: Arc<dyn Map>,
}

impl Mapped {
    pub(crate) fn new(map: Arc<dyn Map>) -> Self {
        Self { map }
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
        Ok(Box::new(queue::MappedQueue::new(Arc::clone(&self.map))?))
    }

    fn extent(&self, offset: u64) -> Result<backend::Extent, IoError> {
        let left = self.map.geometry().capacity.saturating_sub(offset);
        let mut extents = Extents::default();
        if left != 0 {
            self.map.locate(offset, left.min(LOOK_AHEAD), &mut extents)?;
        }
        let Some(first) = extents.as_slice().first() else {
            return Ok(backend::Extent { length: 0, mapped: false });
        };
        match first.place {
            Place::Zero => Ok(backend::Extent { length: first.length, mapped: false }),
            Place::File { file, offset } => {
                let inner = self.map.files()[file].extent(offset)?;
                let length = if inner.length == 0 { first.length } else { inner.length.min(first.length) };
                Ok(backend::Extent { length, mapped: inner.mapped })
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
