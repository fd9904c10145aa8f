//! The access of a mapping: reading and writing, or reading alone.

use std::fmt;

use vm_memory::VolatileSlice;
use zerocopy::{FromBytes, IntoBytes};

use crate::access::BufferError;
use crate::gpadl::{Gpadl, GpadlKey, GpadlView, MapError};
use crate::slices::Slices;

/// What a GPADL is mapped for (the flags of `VmbChannelMapGpadl`, kmcl.md 4.4), and with it what
/// the view can do.
pub trait Access: sealed::Sealed {
    /// The view that the mapping gives.
    type View: Clone + fmt::Debug + Send + Sync;

    /// Maps `gpadl` so.
    ///
    /// # Errors
    /// [`MapError`].
    fn map(self, gpadl: &Gpadl) -> Result<Self::View, MapError>;
}

/// Flags 0: to read and to write. Refused when the GPADL was marked read-only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadWrite;

/// Flag `READ_ONLY`: to read alone. Any GPADL can be mapped so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOnly;

impl Access for ReadWrite {
    type View = GpadlView;

    fn map(self, gpadl: &Gpadl) -> Result<GpadlView, MapError> {
        gpadl.map()
    }
}

impl Access for ReadOnly {
    type View = ReadOnlyView;

    fn map(self, gpadl: &Gpadl) -> Result<ReadOnlyView, MapError> {
        gpadl.map_read_only()
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::ReadWrite {}
    impl Sealed for super::ReadOnly {}
}

/// A mapping of a GPADL for reading: as [`GpadlView`], without a way to write.
///
/// It protects the guest's memory from a device's mistakes, not the device from the guest: the
/// guest still writes there when it likes.
#[derive(Clone, Debug)]
pub struct ReadOnlyView(GpadlView);

impl ReadOnlyView {
    pub(crate) fn new(view: GpadlView) -> Self {
        Self(view)
    }

    /// The name of the GPADL behind it.
    #[must_use]
    pub fn key(&self) -> GpadlKey {
        self.0.key()
    }

    /// True when the guest wants the memory back: finish and drop the view.
    #[must_use]
    pub fn is_tearing_down(&self) -> bool {
        self.0.is_tearing_down()
    }

    /// Bytes in all ranges together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when it names no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Pages listed, each as often as it is listed.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.0.pages()
    }

    /// Copies bytes from guest memory at `offset` into all of `to`.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`]; `to` is then untouched.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), BufferError> {
        self.0.read(offset, to)
    }

    /// One value at `offset`, copied out: see
    /// [`GuestBuffer::read_obj`](crate::GuestBuffer::read_obj).
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`].
    pub fn read_obj<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, BufferError> {
        self.0.read_obj(offset)
    }

    /// The pieces of host memory that hold `len` bytes from `offset`, in order, to be read from.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`].
    pub fn slices(&self, offset: usize, len: usize) -> Result<ReadSlices<'_>, BufferError> {
        self.0.slices(offset, len).map(ReadSlices)
    }

    /// Adds to `out` the iovecs of `len` bytes from `offset`: for calls that take from memory
    /// (`writev`, `pwritev`, `sendmsg`). The type of an iovec has no way to say so; a call that
    /// fills them would write to the guest.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`]; `out` is then as it was.
    pub fn source_iovecs(
        &self,
        offset: usize,
        len: usize,
        out: &mut Vec<libc::iovec>,
    ) -> Result<(), BufferError> {
        self.0.iovecs(offset, len, out)
    }
}

/// The pieces of guest memory behind a part of a [`ReadOnlyView`], in order.
#[derive(Debug)]
pub struct ReadSlices<'a>(Slices<'a>);

impl<'a> Iterator for ReadSlices<'a> {
    type Item = ReadSlice<'a>;

    fn next(&mut self) -> Option<ReadSlice<'a>> {
        self.0.next().map(ReadSlice)
    }
}

/// One piece of guest memory that can be copied from.
#[derive(Debug)]
pub struct ReadSlice<'a>(VolatileSlice<'a>);

impl ReadSlice<'_> {
    /// Bytes; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no piece is empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Copies as much as both have; says how much that was.
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        self.0.copy_to(to)
    }
}
