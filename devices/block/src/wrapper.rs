//! Backends around other backends.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use crate::{Backend, Extent, FixedMemory, Geometry, IoError, Queue};

/// A backend around another one. Each type that implements this trait implements [`Backend`]: all
/// calls go to the inner backend, and the methods named `wrap_...` may change their results.
pub trait Wrapper: Debug + Send + Sync {
    /// Returns the inner backend.
    fn inner(&self) -> &dyn Backend;

    /// Returns the geometry for that of the inner backend.
    fn wrap_geometry(&self, inner: Geometry) -> Geometry {
        inner
    }

    /// Returns the queue around a new queue of the inner backend.
    ///
    /// # Errors
    /// The errors of [`Backend::queue`].
    fn wrap_queue(&self, inner: Box<dyn Queue>) -> io::Result<Box<dyn Queue>> {
        Ok(inner)
    }

    /// Returns the extent at `offset`, as [`Backend::extent`] does.
    ///
    /// # Errors
    /// The errors of [`Backend::extent`].
    fn wrap_extent(&self, offset: u64) -> Result<Extent, IoError> {
        self.inner().extent(offset)
    }
}

impl<W: Wrapper> Backend for W {
    fn geometry(&self) -> Geometry {
        self.wrap_geometry(self.inner().geometry())
    }

    fn identity(&self) -> &[u8] {
        self.inner().identity()
    }

    fn queue(&self) -> io::Result<Box<dyn Queue>> {
        self.wrap_queue(self.inner().queue()?)
    }

    fn extent(&self, offset: u64) -> Result<Extent, IoError> {
        self.wrap_extent(offset)
    }

    fn resize(&self, capacity: u64) -> Result<(), IoError> {
        self.inner().resize(capacity)
    }

    fn use_fixed(&self, memory: &Arc<FixedMemory>) -> Result<(), IoError> {
        self.inner().use_fixed(memory)
    }

    fn fixed_calls(&self) -> Option<u64> {
        self.inner().fixed_calls()
    }
}
