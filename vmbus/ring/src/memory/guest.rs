//! Rings over a guest's memory, in the host's view.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::Deref;
use core::ptr::NonNull;

use vm_memory::VolatileSlice;
use vmbus_gpadl::{ContiguousMapping, GpadlView, GuestBuffer};
use vmbus_protocol::limits::PAGE_SIZE;

use super::{Backing, Data, Mode, RingMemory};
use crate::control::Control;
use crate::error::MapError;
use crate::limits::{MAX_MIRROR_RUNS, MAX_RING_PAGES, MIN_RING_PAGES};
use crate::offset::DataSize;

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

    pub(super) fn build<K>(
        keep: K,
        first: usize,
        pages: usize,
        prefer: Mode,
    ) -> Result<Self, MapError>
    where
        K: Deref<Target = GuestBuffer> + Send + Sync + 'static,
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
            backing: Arc::new(Backing { _mirror: mirror, _keep: Some(Box::new(keep)) }),
        })
    }
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
