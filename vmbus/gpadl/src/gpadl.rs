//! Counted GPADLs: a teardown is answered when no view can access the memory any more.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

use crate::buffer::GuestBuffer;
use crate::count::{Mapped, ViewCount};

pub use crate::count::Teardown;

/// The name of one GPADL for the life of a VM. The guest chooses handles and uses them again, but
/// serial numbers are unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GpadlKey {
    /// The channel that created the GPADL.
    pub relid: u32,
    /// The guest's handle.
    pub id: u32,
    /// The number of this GPADL among all GPADLs of the VM.
    pub serial: u64,
}

/// A receiver of the notification that the last view of a GPADL was dropped after its teardown had
/// begun. The thread that dropped the view calls it.
pub trait ReleaseSink: Send + Sync {
    /// Reports that no code can access the memory of `key` any more. Must not block.
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
    /// Whether mappings for writing are refused: see [`Gpadl::mark_read_only`].
    read_only: AtomicBool,
    sink: Arc<dyn ReleaseSink>,
}

/// The reasons to refuse a mapping of a GPADL (kmcl.md 4.4).
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapError {
    /// The channel has no such GPADL.
    #[error("no GPADL {0:#x} on this channel")]
    Unknown(u32),
    /// The GPADL is mapped already; there may be only one mapping at a time.
    #[error("GPADL {0:#x} is mapped already")]
    Mapped(u32),
    /// The guest tears the GPADL down.
    #[error("GPADL {0:#x} is being torn down")]
    Going(u32),
    /// A mapping for writing was requested, but the GPADL is read-only.
    #[error("GPADL {0:#x} is read-only")]
    ReadOnly(u32),
}

impl Gpadl {
    /// Returns a GPADL over `buffer`, without a view.
    #[must_use]
    pub fn new(key: GpadlKey, mut buffer: GuestBuffer, sink: Arc<dyn ReleaseSink>) -> Self {
        buffer.shrink();
        let (views, read_only) = (ViewCount::new(), AtomicBool::new(false));
        Self { shared: Arc::new(Shared { key, buffer, views, read_only, sink }) }
    }

    /// Returns its name.
    #[must_use]
    pub fn key(&self) -> GpadlKey {
        self.shared.key
    }

    /// Returns the buffer that it describes, for reports and for checks that access no guest byte.
    #[must_use]
    pub fn buffer(&self) -> &GuestBuffer {
        &self.shared.buffer
    }

    /// Returns the number of existing views.
    #[must_use]
    pub fn views(&self) -> u32 {
        self.shared.views.count()
    }

    /// Returns true once a teardown has begun.
    #[must_use]
    pub fn is_tearing_down(&self) -> bool {
        self.shared.views.is_tearing_down()
    }

    /// Forbids later mappings for writing. An existing mapping stays valid.
    ///
    /// No GPADL message says that a GPADL is read-only (kmcl.md 4.6), so a driver that learns it in
    /// another way calls this function. It is an agreement between two drivers, and does not
    /// protect one from the other.
    pub fn mark_read_only(&self) {
        self.shared.read_only.store(true, Ordering::Release);
    }

    /// Returns true once it was marked read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.shared.read_only.load(Ordering::Acquire)
    }

    /// Maps it for reading and writing. No other mapping can exist until the view and all its
    /// clones are dropped.
    ///
    /// # Errors
    /// [`MapError::ReadOnly`], [`MapError::Mapped`] or [`MapError::Going`].
    pub fn map(&self) -> Result<GpadlView, MapError> {
        if self.is_read_only() {
            return Err(MapError::ReadOnly(self.shared.key.id));
        }
        self.map_any()
    }

    /// Maps it for any access, whether it is marked read-only or not.
    pub(crate) fn map_any(&self) -> Result<GpadlView, MapError> {
        match self.shared.views.map() {
            Mapped::Yes => Ok(GpadlView { shared: Arc::clone(&self.shared) }),
            Mapped::Going => Err(MapError::Going(self.shared.key.id)),
            Mapped::Already => Err(MapError::Mapped(self.shared.key.id)),
        }
    }

    /// Begins the teardown: no new mapping can be made. A repeated call returns the present state
    /// and causes no second notification.
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

/// A mapping of a GPADL. Its bytes can be used while this lives, and the guest gets its memory back
/// only after it was dropped.
///
/// Clones belong to the same mapping and are counted.
pub struct GpadlView {
    shared: Arc<Shared>,
}

impl GpadlView {
    /// Returns the name of the GPADL.
    #[must_use]
    pub fn key(&self) -> GpadlKey {
        self.shared.key
    }

    /// Returns true when the guest wants the memory back: the device should finish and drop the
    /// view.
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
