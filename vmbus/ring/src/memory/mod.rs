//! The memory of one ring: a control page, and data pages that look like one cyclic area whatever
//! pages the guest chose.

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

/// How a ring's data is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The data area is mapped twice, back to back: no packet ever wraps, every payload is one
    /// piece.
    Mirrored,
    /// A table of page addresses: packets that cross pages are handled in pieces.
    Paged,
}

/// One ring in shared memory. Keeps the pages alive; gives its mappings back when the last clone is
/// dropped.
///
/// Clones are for an end in the same process: they share the mapping, and with it the processor's
/// view of which lines are cached.
#[derive(Clone)]
pub struct RingMemory {
    control: NonNull<Control>,
    data: Data,
    size: DataSize,
    backing: Arc<Backing>,
}

/// How to get from an offset to an address.
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
// access goes through atomics and the copy helpers, which assume nothing about who else touches
// that memory, other threads of this process included.
unsafe impl Send for RingMemory {}
// SAFETY: as above; `&RingMemory` gives nothing but such accesses.
unsafe impl Sync for RingMemory {}

impl RingMemory {
    /// Maps the ring in pages `first_page..first_page + pages` of a GPADL: one control page, the
    /// rest data. Mirrored when the data is backed by files and lies in at most
    /// [`crate::limits::MAX_MIRROR_RUNS`] runs, else paged.
    ///
    /// The view is kept, so that a teardown waits for the ring. A GPADL may have any number of
    /// ranges, duplicate pages too, but ring pages must be whole pages of guest memory.
    ///
    /// # Errors
    /// [`MapError`]: bad size, or pages that the view does not have.
    pub fn map(view: GpadlView, first_page: usize, pages: usize) -> Result<Self, MapError> {
        Self::build(view, first_page, pages, Mode::Mirrored)
    }

    /// As [`RingMemory::map`], in the mode that the caller prefers: `Mirrored` falls back to
    /// `Paged` where it cannot be had.
    ///
    /// # Errors
    /// As [`RingMemory::map`].
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
        // At most MAX_RING_PAGES pages: cannot overflow.
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
            // Without it the ring works by page table, so the reason does not matter.
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

    /// How the data is reached.
    #[must_use]
    pub fn mode(&self) -> Mode {
        if self.backing.mirror.is_some() { Mode::Mirrored } else { Mode::Paged }
    }

    /// Bytes of the data area.
    #[must_use]
    pub fn data_size(&self) -> u32 {
        self.size.get()
    }

    /// Makes the ring empty and declares its features: what the guest does with both rings before
    /// it opens the channel. Neither end may be using the ring.
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
        // `Control` is made of atomics only.
        unsafe { self.control.as_ref() }
    }

    #[inline]
    pub(crate) fn size(&self) -> DataSize {
        self.size
    }

    /// The 8-byte unit at `at`. Units never cross pages.
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

    /// The address of `len` bytes from `at`, if they are contiguous. `len` is at most the data
    /// size.
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

    /// The address of `at`, and how many bytes from there are contiguous.
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

    /// The `len` bytes from `at`, piece by piece. `len` is at most the data size.
    #[inline]
    pub(crate) fn pieces(&self, at: Offset, len: u32) -> Pieces<'_> {
        Pieces { memory: self, at, left: len.min(self.size.get()) }
    }

    /// Copies from the data at `at` until `to` is full. `to` is at most as long as the data.
    #[inline(always)]
    pub(crate) fn read(&self, at: Offset, to: &mut [u8]) {
        let Ok(len) = u32::try_from(to.len()) else { return };
        match self.contiguous(at, len) {
            // SAFETY: `contiguous` vouches for `len` mapped bytes.
            Some(from) => unsafe { copy_from_shared(from, to) },
            None => self.read_pieces(at, len, to),
        }
    }

    #[inline(never)]
    fn read_pieces(&self, at: Offset, len: u32, to: &mut [u8]) {
        let mut rest = to;
        for (from, len) in self.pieces(at, len) {
            let Some((now, later)) = rest.split_at_mut_checked(len) else { return };
            // SAFETY: `pieces` vouches for `len` mapped bytes, and `now` has that many.
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
            // SAFETY: `pieces` vouches for `len` mapped bytes, and `now` has that many.
            unsafe { copy_to_shared(now, to) };
            rest = later;
        }
    }

    /// A handle that shows the ring without keeping it alive.
    pub(crate) fn watch_parts(&self) -> (NonNull<Control>, Weak<Backing>) {
        (self.control, Arc::downgrade(&self.backing))
    }
}

/// See [`RingMemory::pieces`].
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
        // The last piece may be no multiple of 8, but then the offset is not used again.
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

/// The address of a slice, if it is made of whole pages.
fn whole_pages(slice: &VolatileSlice<'_>) -> Option<NonNull<u8>> {
    let address = NonNull::new(slice.ptr_guard_mut().as_ptr())?;
    let aligned =
        address.addr().get().is_multiple_of(PAGE_SIZE) && slice.len().is_multiple_of(PAGE_SIZE);
    aligned.then_some(address)
}

/// One address for each page of `bytes` bytes from `start`, built where it stays.
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
    // SAFETY: no place is left: all of them were written, in order. The unsafe reads above rely on
    // their number.
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
