//! Counted GPADLs: a teardown is answered when no view can touch the memory any more.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

use crate::buffer::GuestBuffer;
use crate::count::{Mapped, ViewCount};
use crate::mapping::ReadOnlyView;

pub use crate::count::Teardown;

/// Names one GPADL for the life of a VM: handles are chosen by the guest and come again, serial
/// numbers never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GpadlKey {
    /// Channel that created it.
    pub relid: u32,
    /// The guest's handle.
    pub id: u32,
    /// Counts every GPADL ever made in this VM.
    pub serial: u64,
}

/// Hears that the last view of a GPADL was dropped after its teardown had begun. Called by the
/// thread that dropped it.
pub trait ReleaseSink: Send + Sync {
    /// The memory behind `key` can no longer be reached. Must not block.
    fn gpadl_released(&self, key: GpadlKey);
}

/// A guest buffer that the guest has described and the host has accepted.
#[derive(Clone)]
pub struct Gpadl {
    shared: Arc<Shared>,
}

struct Shared {
    key: GpadlKey,
    buffer: GuestBuffer,
    views: ViewCount,
    /// Not for writing: see [`Gpadl::mark_read_only`].
    read_only: AtomicBool,
    sink: Arc<dyn ReleaseSink>,
}

/// Why a GPADL could not be mapped (kmcl.md 4.4).
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapError {
    /// No such GPADL on this channel.
    #[error("no GPADL {0:#x} on this channel")]
    Unknown(u32),
    /// One mapping at a time.
    #[error("GPADL {0:#x} is mapped already")]
    Mapped(u32),
    /// The guest tears it down.
    #[error("GPADL {0:#x} is being torn down")]
    Going(u32),
    /// Asked for writing, marked read-only.
    #[error("GPADL {0:#x} is read-only")]
    ReadOnly(u32),
}

impl Gpadl {
    /// A GPADL over `buffer`, with no view yet.
    #[must_use]
    pub fn new(key: GpadlKey, mut buffer: GuestBuffer, sink: Arc<dyn ReleaseSink>) -> Self {
        buffer.shrink();
        let (views, read_only) = (ViewCount::new(), AtomicBool::new(false));
        Self { shared: Arc::new(Shared { key, buffer, views, read_only, sink }) }
    }

    /// Its name.
    #[must_use]
    pub fn key(&self) -> GpadlKey {
        self.shared.key
    }

    /// Returns the buffer that it describes, for reports and for checks that touch no guest byte.
    #[must_use]
    pub fn buffer(&self) -> &GuestBuffer {
        &self.shared.buffer
    }

    /// Views alive now.
    #[must_use]
    pub fn views(&self) -> u32 {
        self.shared.views.count()
    }

    /// True once a teardown has begun.
    #[must_use]
    pub fn is_tearing_down(&self) -> bool {
        self.shared.views.is_tearing_down()
    }

    /// Forbids mappings for writing from here on. A mapping that exists stays valid.
    ///
    /// No GPADL message says that a GPADL is read-only (kmcl.md 4.6): whoever hears of it in
    /// another way marks it. It is an agreement between two drivers, no protection of one from
    /// the other.
    pub fn mark_read_only(&self) {
        self.shared.read_only.store(true, Ordering::Release);
    }

    /// True once it was marked.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.shared.read_only.load(Ordering::Acquire)
    }

    /// Maps it to read and write: the only mapping until the view and all its clones are gone.
    ///
    /// # Errors
    /// [`MapError::ReadOnly`], [`MapError::Mapped`] or [`MapError::Going`].
    pub fn map(&self) -> Result<GpadlView, MapError> {
        if self.is_read_only() {
            return Err(MapError::ReadOnly(self.shared.key.id));
        }
        self.map_any()
    }

    /// Maps it to read, whether it is marked or not; else as [`Gpadl::map`].
    ///
    /// # Errors
    /// [`MapError::Mapped`] or [`MapError::Going`].
    pub fn map_read_only(&self) -> Result<ReadOnlyView, MapError> {
        self.map_any().map(ReadOnlyView::new)
    }

    fn map_any(&self) -> Result<GpadlView, MapError> {
        match self.shared.views.map() {
            Mapped::Yes => Ok(GpadlView { shared: Arc::clone(&self.shared) }),
            Mapped::Going => Err(MapError::Going(self.shared.key.id)),
            Mapped::Already => Err(MapError::Mapped(self.shared.key.id)),
        }
    }

    /// Begins the teardown: no new mapping from here on. Calling it again says how things stand and
    /// causes no second notice.
    #[must_use = "a teardown that waits must be answered later"]
    pub fn teardown(&self) -> Teardown {
        self.shared.views.teardown()
    }
}

impl fmt::Debug for Gpadl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpadl")
            .field("key", &self.key())
            .field("buffer", self.buffer())
            .field("views", &self.views())
            .finish()
    }
}

/// A mapping of a GPADL: its bytes can be used while this lives, and the guest gets its memory back
/// only after it was dropped.
///
/// Clones belong to the same mapping and are counted.
pub struct GpadlView {
    shared: Arc<Shared>,
}

impl GpadlView {
    /// The name of the GPADL behind it.
    #[must_use]
    pub fn key(&self) -> GpadlKey {
        self.shared.key
    }

    /// True when the guest wants the memory back: finish and drop the view.
    #[must_use]
    pub fn is_tearing_down(&self) -> bool {
        self.shared.views.is_tearing_down()
    }
}

impl Deref for GpadlView {
    type Target = GuestBuffer;

    fn deref(&self) -> &GuestBuffer {
        &self.shared.buffer
    }
}

impl Clone for GpadlView {
    fn clone(&self) -> Self {
        self.shared.views.add();
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for GpadlView {
    fn drop(&mut self) {
        if self.shared.views.drop_one() {
            self.shared.sink.gpadl_released(self.shared.key);
        }
    }
}

impl fmt::Debug for GpadlView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GpadlView")
            .field("key", &self.key())
            .field("buffer", &self.shared.buffer)
            .finish()
    }
}
