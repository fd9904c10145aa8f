//! The access of a mapping: reading and writing, or only reading.

use std::fmt;

use vm_memory::VolatileSlice;
use zerocopy::{FromBytes, IntoBytes};

use crate::access::BufferError;
use crate::gpadl::{Gpadl, GpadlKey, GpadlView, MapError};
use crate::slices::Slices;

/// The access for which a GPADL is mapped (the flags of `VmbChannelMapGpadl`, kmcl.md 4.4). It
/// determines the type of the view.
pub trait Access: sealed::Sealed {
    /// The view of the mapping.
    type View: Clone + fmt::Debug + Send + Sync;

    /// Maps `gpadl` with this access.
    ///
    /// # Errors
    /// [`MapError`].
    fn map(self, gpadl: &Gpadl) -> Result<Self::View, MapError>;
}

/// Flags 0: reading and writing. Refused when the GPADL was marked read-only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadWrite;

/// Flag `READ_ONLY`: only reading. Any GPADL can be mapped with it.
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

impl Gpadl {
    /// Maps it for reading, whether it is marked read-only or not. Otherwise it works like
    /// [`Gpadl::map`].
    ///
    /// # Errors
    /// [`MapError::Mapped`] or [`MapError::Going`].
    pub fn map_read_only(&self) -> Result<ReadOnlyView, MapError> {
        self.map_any().map(ReadOnlyView)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::ReadWrite {}
    impl Sealed for super::ReadOnly {}
}

/// A mapping of a GPADL for reading: like [`GpadlView`], but without functions that write.
///
/// It protects the guest's memory from errors of a device, but not the device from the guest: the
/// guest can still write to the memory at any time.
#[derive(Clone, Debug)]
pub struct ReadOnlyView(GpadlView);

impl ReadOnlyView {
    /// Returns the name of the GPADL.
    #[must_use]
    pub fn key(&self) -> GpadlKey {
        self.0.key()
    }

    /// Returns true when the guest wants the memory back: the device should finish and drop the
    /// view.
    #[must_use]
    pub fn is_tearing_down(&self) -> bool {
        self.0.is_tearing_down()
    }

    /// Returns the bytes in all ranges together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true when it has no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of listed pages. A repeated page counts each time.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.0.pages()
    }

    /// Copies bytes from guest memory at `offset` into all of `to`.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`]; `to` is then unchanged.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), BufferError> {
        self.0.read(offset, to)
    }

    /// Returns a copy of the value at `offset`: see
    /// [`GuestBuffer::read_obj`](crate::GuestBuffer::read_obj).
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`].
    pub fn read_obj<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, BufferError> {
        self.0.read_obj(offset)
    }

    /// Returns the pieces of host memory that hold `len` bytes from `offset`, in order, for
    /// reading.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`].
    pub fn slices(&self, offset: usize, len: usize) -> Result<ReadSlices<'_>, BufferError> {
        self.0.slices(offset, len).map(ReadSlices)
    }

    /// Adds to `out` the iovecs of `len` bytes from `offset`, for calls that read from memory
    /// (`writev`, `pwritev`, `sendmsg`). The type of an iovec cannot express that; a call that
    /// fills them would write to the guest.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`]; `out` is then unchanged.
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

/// One piece of guest memory, for copies out of it.
#[derive(Debug)]
pub struct ReadSlice<'a>(VolatileSlice<'a>);

impl ReadSlice<'_> {
    /// Returns the number of bytes; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no piece is empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Copies as many bytes as both have. Returns their number.
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        self.0.copy_to(to)
    }
}
