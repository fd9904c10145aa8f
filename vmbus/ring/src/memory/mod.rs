//! The memory of one ring: a control page, and data pages that form one cyclic area for any choice
//! of pages by the guest.

mod copy;
#[cfg(feature = "std")]
mod guest;
#[cfg(feature = "std")]
mod plain;

use alloc::sync::{Arc, Weak};
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

use vmbus_protocol::limits::{PAGE_SHIFT, PAGE_SIZE};
use vmbus_protocol::num::usize_of;

use crate::control::Control;
use crate::error::MapError;
use crate::limits::{MAX_RING_PAGES, MIN_RING_PAGES};
use crate::offset::{DataSize, Offset};

pub(crate) use copy::{copy_from_shared, copy_to_shared};
#[cfg(feature = "std")]
pub use plain::PlainMemory;

/// The access to a ring's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The data area is mapped twice, back to back. No packet ever wraps, and every payload is one
    /// piece.
    Mirrored,
    /// A table of page addresses. Packets that cross pages are handled in pieces.
    Paged,
}

/// One ring in shared memory. It keeps the pages alive, and its mappings end when the last clone is
/// dropped.
///
/// Clones are for an end in the same process: they share the mapping, and with it the processor's
/// cached lines.
#[derive(Clone)]
pub struct RingMemory {
    control: NonNull<Control>,
    data: Data,
    size: DataSize,
    backing: Arc<Backing>,
}

/// The conversion of an offset to an address.
#[derive(Clone)]
enum Data {
    /// Twice the data size, contiguous.
    #[cfg_attr(not(feature = "std"), allow(dead_code))]
    Mirrored(NonNull<u8>),
    /// One address for each page.
    Paged(Arc<[NonNull<u8>]>),
}

/// The owners of the addresses, if the ring owns them. The mirror is dropped first, then the pages
/// behind it.
#[derive(Default)]
pub(crate) struct Backing {
    #[cfg(feature = "std")]
    _mirror: Option<vmbus_gpadl::ContiguousMapping>,
    #[cfg(feature = "std")]
    _keep: Option<alloc::boxed::Box<dyn core::any::Any + Send + Sync>>,
}

// SAFETY: the pointers name shared memory that `backing` keeps mapped at fixed addresses; all
// accesses are atomics and the copy helpers, which permit concurrent access by other code,
// including other threads of this process.
unsafe impl Send for RingMemory {}
// SAFETY: as above; `&RingMemory` permits only such accesses.
unsafe impl Sync for RingMemory {}

impl RingMemory {
    /// Makes a ring of pages of the caller: a control page, and data pages in their order in the
    /// ring. The access is [`Mode::Paged`]. For programs that run inside a guest, without an
    /// operating system that could map memory.
    ///
    /// # Errors
    /// [`MapError::Size`] for an invalid number of pages, [`MapError::NotPages`] if an address is
    /// no multiple of 4,096.
    ///
    /// # Safety
    /// Each address must be that of 4,096 bytes that stay mapped, readable and writable until the
    /// last clone is dropped, and that no reference covers. Any code may access them meanwhile.
    pub unsafe fn from_pages(pages: &[NonNull<u8>]) -> Result<Self, MapError> {
        let wrong_size = MapError::Size { pages: pages.len() };
        if !(MIN_RING_PAGES..=MAX_RING_PAGES).contains(&pages.len()) {
            return Err(wrong_size);
        }
        if pages.iter().any(|page| !page.addr().get().is_multiple_of(PAGE_SIZE)) {
            return Err(MapError::NotPages);
        }
        let Some((control, data)) = pages.split_first() else { return Err(wrong_size) };
        // At most MAX_RING_PAGES pages, so the product cannot overflow.
        let bytes = u32::try_from(data.len().wrapping_mul(PAGE_SIZE)).ok();
        let Some(size) = bytes.and_then(DataSize::new) else { return Err(wrong_size) };
        Ok(Self {
            control: control.cast(),
            data: Data::Paged(Arc::from(data)),
            size,
            backing: Arc::new(Backing::default()),
        })
    }

    /// Returns the mode of access to the data.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self.data {
            Data::Mirrored(_) => Mode::Mirrored,
            Data::Paged(_) => Mode::Paged,
        }
    }

    /// Returns the bytes of the data area.
    #[must_use]
    pub fn data_size(&self) -> u32 {
        self.size.get()
    }

    /// Makes the ring empty and declares its features, like a guest before it opens the channel.
    /// Neither end may be using the ring.
    pub fn reset(&self) {
        // SAFETY: `control` names one whole page that `backing` keeps mapped.
        unsafe { copy_to_shared(&[0_u8; PAGE_SIZE], self.control.cast()) };
        self.control().feature_bits.store(
            crate::control::FEATURE_PENDING_SEND_SIZE,
            core::sync::atomic::Ordering::Release,
        );
    }

    #[inline]
    pub(crate) fn control(&self) -> &Control {
        // SAFETY: `control` names one whole, page-aligned page that `backing` keeps mapped;
        // `Control` consists of atomics only.
        unsafe { self.control.as_ref() }
    }

    #[inline]
    pub(crate) fn size(&self) -> DataSize {
        self.size
    }

    /// Returns the 8-byte unit at `at`. Units never cross pages.
    #[inline]
    pub(crate) fn word(&self, at: Offset) -> &AtomicU64 {
        let address = match &self.data {
            // SAFETY: `at` is below the data size, and the mapping has twice that many bytes.
            Data::Mirrored(base) => unsafe { base.add(at.index()) },
            Data::Paged(pages) => {
                debug_assert!(at.index() >> PAGE_SHIFT < pages.len());
                // SAFETY: `at` is below the data size, which is `pages.len()` pages; the rest of
                // the offset stays inside its page.
                unsafe { pages.get_unchecked(at.index() >> PAGE_SHIFT).add(in_page(at)) }
            }
        };
        // SAFETY: 8 mapped bytes, aligned because offsets are multiples of 8 and pages are aligned.
        unsafe { address.cast::<AtomicU64>().as_ref() }
    }

    /// Returns the address of `len` bytes from `at`, if they are contiguous. `len` is at most the
    /// data size.
    #[inline]
    pub(crate) fn contiguous(&self, at: Offset, len: u32) -> Option<NonNull<u8>> {
        debug_assert!(len <= self.size.get());
        match &self.data {
            // SAFETY: `at + len` is at most twice the data size, which is mapped.
            Data::Mirrored(base) => Some(unsafe { base.add(at.index()) }),
            Data::Paged(_) => {
                let piece = self.piece(at);
                (piece.1 >= usize_of(len)).then_some(piece.0)
            }
        }
    }

    /// Returns the address of `at`, and the number of contiguous bytes from there.
    #[inline]
    fn piece(&self, at: Offset) -> (NonNull<u8>, usize) {
        match &self.data {
            // SAFETY: as in `contiguous`.
            Data::Mirrored(base) => (unsafe { base.add(at.index()) }, usize_of(self.size.get())),
            Data::Paged(_) => {
                (NonNull::from(self.word(at)).cast(), PAGE_SIZE.wrapping_sub(in_page(at)))
            }
        }
    }

    /// Returns the `len` bytes from `at` in pieces. `len` is at most the data size.
    #[inline]
    pub(crate) fn pieces(&self, at: Offset, len: u32) -> Pieces<'_> {
        Pieces { memory: self, at, left: len.min(self.size.get()) }
    }

    /// Copies from the data at `at` until `to` is full. `to` is at most as long as the data.
    #[inline(always)]
    pub(crate) fn read(&self, at: Offset, to: &mut [u8]) {
        let Ok(len) = u32::try_from(to.len()) else { return };
        match self.contiguous(at, len) {
            // SAFETY: `contiguous` guarantees `len` mapped bytes.
            Some(from) => unsafe { copy_from_shared(from, to) },
            None => self.read_pieces(at, len, to),
        }
    }

    #[inline(never)]
    fn read_pieces(&self, at: Offset, len: u32, to: &mut [u8]) {
        let mut rest = to;
        for (from, len) in self.pieces(at, len) {
            let Some((now, later)) = rest.split_at_mut_checked(len) else { return };
            // SAFETY: `pieces` guarantees `len` mapped bytes, and `now` has that many.
            unsafe { copy_from_shared(from, now) };
            rest = later;
        }
    }

    /// Copies all of `from` to the data at `at`. `from` is at most as long as the data.
    #[inline]
    pub(crate) fn write(&self, at: Offset, from: &[u8]) {
        let Ok(len) = u32::try_from(from.len()) else { return };
        let mut rest = from;
        for (to, len) in self.pieces(at, len) {
            let Some((now, later)) = rest.split_at_checked(len) else { return };
            // SAFETY: `pieces` guarantees `len` mapped bytes, and `now` has that many.
            unsafe { copy_to_shared(now, to) };
            rest = later;
        }
    }

    /// Returns the parts of a handle that inspects the ring without keeping it alive.
    pub(crate) fn watch_parts(&self) -> (NonNull<Control>, Weak<Backing>) {
        (self.control, Arc::downgrade(&self.backing))
    }
}

/// The iterator of [`RingMemory::pieces`].
pub(crate) struct Pieces<'a> {
    memory: &'a RingMemory,
    at: Offset,
    left: u32,
}

impl Iterator for Pieces<'_> {
    type Item = (NonNull<u8>, usize);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let (address, available) = self.memory.piece(self.at);
        let len = u32::try_from(available).unwrap_or(u32::MAX).min(self.left);
        self.left = self.left.wrapping_sub(len);
        // The last piece may not be a multiple of 8, but then the offset is not used again.
        if self.left != 0 {
            self.at = self.memory.size.advance(self.at, len);
        }
        Some((address, usize_of(len)))
    }
}

#[inline]
fn in_page(at: Offset) -> usize {
    at.index() & PAGE_SIZE.wrapping_sub(1)
}

impl fmt::Debug for RingMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingMemory")
            .field("mode", &self.mode())
            .field("data_size", &self.size.get())
            .finish_non_exhaustive()
    }
}
