//! The memory of one ring: a control page, and data pages that form one cyclic area for any choice
//! of pages by the guest.

mod copy;
mod plain;

use std::any::Any;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use vm_memory::VolatileSlice;
use vmbus_gpadl::{ContiguousMapping, GpadlView, GuestBuffer};
use vmbus_protocol::limits::{PAGE_SHIFT, PAGE_SIZE};
use vmbus_protocol::num::usize_of;

use crate::control::Control;
use crate::error::MapError;
use crate::limits::{MAX_MIRROR_RUNS, MAX_RING_PAGES, MIN_RING_PAGES};
use crate::offset::{DataSize, Offset};

pub(crate) use copy::{copy_from_shared, copy_to_shared};
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
    Mirrored(NonNull<u8>),
    /// One address for each page.
    Paged(Arc<[NonNull<u8>]>),
}

/// The owners of the addresses. The mirror is dropped first, then the pages behind it.
pub(crate) struct Backing {
    mirror: Option<ContiguousMapping>,
    _keep: Box<dyn Any + Send + Sync>,
}

// SAFETY: the pointers name shared memory that `backing` keeps mapped at fixed addresses; all
// accesses are atomics and the copy helpers, which permit concurrent access by other code,
// including other threads of this process.
unsafe impl Send for RingMemory {}
// SAFETY: as above; `&RingMemory` permits only such accesses.
unsafe impl Sync for RingMemory {}

impl RingMemory {
    /// Maps the ring in pages `first_page..first_page + pages` of a GPADL: one control page, and
    /// data pages. It is mirrored when the data is backed by files and lies in at most
    /// [`crate::limits::MAX_MIRROR_RUNS`] runs, otherwise paged.
    ///
    /// The ring holds the view, so that a teardown waits for the ring. A GPADL may have any number
    /// of ranges, also with repeated pages, but ring pages must be whole pages of guest memory.
    ///
    /// # Errors
    /// [`MapError`]: an invalid size, or pages that the view does not have.
    pub fn map(view: GpadlView, first_page: usize, pages: usize) -> Result<Self, MapError> {
        Self::build(view, first_page, pages, Mode::Mirrored)
    }

    /// Maps the ring like [`RingMemory::map`], in the preferred mode: `Mirrored` falls back to
    /// `Paged` if a mirror cannot be made.
    ///
    /// # Errors
    /// The errors of [`RingMemory::map`].
    pub fn map_as(
        view: GpadlView,
        first_page: usize,
        pages: usize,
        prefer: Mode,
    ) -> Result<Self, MapError> {
        Self::build(view, first_page, pages, prefer)
    }

    fn build<K>(keep: K, first: usize, pages: usize, prefer: Mode) -> Result<Self, MapError>
    where
        K: std::ops::Deref<Target = GuestBuffer> + Send + Sync + 'static,
    {
        let buffer: &GuestBuffer = &keep;
        if !(MIN_RING_PAGES..=MAX_RING_PAGES).contains(&pages) {
            return Err(MapError::Size { pages });
        }
        let beyond = MapError::BeyondBuffer { first, pages, bytes: buffer.len() };
        let (Some(start), data_pages) = (first.checked_mul(PAGE_SIZE), pages.wrapping_sub(1))
        else {
            return Err(beyond);
        };
        let Some(data_start) = start.checked_add(PAGE_SIZE) else { return Err(beyond) };
        // At most MAX_RING_PAGES pages, so the product cannot overflow.
        let data_bytes = data_pages.wrapping_mul(PAGE_SIZE);
        let size = u32::try_from(data_bytes)
            .ok()
            .and_then(DataSize::new)
            .ok_or(MapError::Size { pages })?;

        let control = buffer.slices(start, PAGE_SIZE).ok().and_then(|mut slices| slices.next());
        let Some(control) = control else { return Err(beyond) };
        let control = whole_pages(&control).ok_or(MapError::NotPages)?.cast::<Control>();
        let Ok(slices) = buffer.slices(data_start, data_bytes) else { return Err(beyond) };

        let mirror = match prefer {
            // Without a mirror the ring uses a page table, so the reason does not matter.
            Mode::Mirrored => ContiguousMapping::twice(slices, MAX_MIRROR_RUNS).ok(),
            Mode::Paged => None,
        };
        let data = match &mirror {
            Some(mirror) => Data::Mirrored(mirror.start()),
            None => Data::Paged(page_table(buffer, data_start, data_bytes)?),
        };
        Ok(Self {
            control,
            data,
            size,
            backing: Arc::new(Backing { mirror, _keep: Box::new(keep) }),
        })
    }

    /// Returns the mode of access to the data.
    #[must_use]
    pub fn mode(&self) -> Mode {
        if self.backing.mirror.is_some() { Mode::Mirrored } else { Mode::Paged }
    }

    /// Returns the bytes of the data area.
    #[must_use]
    pub fn data_size(&self) -> u32 {
        self.size.get()
    }

    /// Makes the ring empty and declares its features, like a guest before it opens the channel.
    /// Neither end may be using the ring.
    pub fn reset(&self) {
        let control = self.page_slice();
        control.copy_from(&[0_u8; PAGE_SIZE]);
        self.control()
            .feature_bits
            .store(crate::control::FEATURE_PENDING_SEND_SIZE, std::sync::atomic::Ordering::Release);
    }

    fn page_slice(&self) -> VolatileSlice<'_> {
        // SAFETY: `control` names one whole page that `backing` keeps mapped.
        unsafe { VolatileSlice::new(self.control.as_ptr().cast(), PAGE_SIZE) }
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

/// Returns the address of a slice, if it consists of whole pages.
fn whole_pages(slice: &VolatileSlice<'_>) -> Option<NonNull<u8>> {
    let address = NonNull::new(slice.ptr_guard_mut().as_ptr())?;
    let aligned =
        address.addr().get().is_multiple_of(PAGE_SIZE) && slice.len().is_multiple_of(PAGE_SIZE);
    aligned.then_some(address)
}

/// Returns one address for each page of `bytes` bytes from `start`, built in its final location.
fn page_table(
    buffer: &GuestBuffer,
    start: usize,
    bytes: usize,
) -> Result<Arc<[NonNull<u8>]>, MapError> {
    let slices = buffer.slices(start, bytes).map_err(|_| MapError::NotPages)?;
    let mut table = Arc::new_uninit_slice(bytes / PAGE_SIZE);
    let mut places = Arc::get_mut(&mut table).map(|table| table.iter_mut()).unwrap_or_default();
    let mut whole = true;
    slices.for_each(|slice| {
        let Some(run) = whole_pages(&slice) else {
            whole = false;
            return;
        };
        for offset in (0..slice.len()).step_by(PAGE_SIZE) {
            if let Some(place) = places.next() {
                // SAFETY: `offset` is below the length of the slice.
                place.write(unsafe { run.add(offset) });
            }
        }
    });
    if !whole || places.next().is_some() {
        return Err(MapError::NotPages);
    }
    // SAFETY: all entries were written, in order. The unsafe reads above rely on their number.
    Ok(unsafe { table.assume_init() })
}

impl fmt::Debug for RingMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingMemory")
            .field("mode", &self.mode())
            .field("data_size", &self.size.get())
            .finish_non_exhaustive()
    }
}
