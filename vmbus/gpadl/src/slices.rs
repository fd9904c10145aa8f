//! The pieces of a part of a guest buffer.

use std::ptr;

use vm_memory::VolatileSlice;
use vmbus_protocol::limits::{PAGE_SHIFT, PAGE_SIZE};
use vmbus_protocol::num::usize_of;

use crate::buffer::GuestBuffer;
use crate::ram::GuestRam;

/// The pieces of host memory behind a part of a [`GuestBuffer`], in order.
#[derive(Debug)]
pub struct Slices<'a> {
    buffer: &'a GuestBuffer,
    /// Bytes that have not been returned.
    left: usize,
    range: usize,
    /// Bytes of the current range that have not been returned.
    range_left: usize,
    run: usize,
    /// Host address of the next byte.
    address: usize,
    /// Bytes of the current run from that address.
    run_left: usize,
}

impl<'a> Slices<'a> {
    /// Returns the pieces of `len` bytes from `offset`, which the caller has checked to be inside.
    #[inline]
    pub(crate) fn new(buffer: &'a GuestBuffer, offset: usize, len: usize) -> Self {
        let mut slices =
            Self { buffer, left: len, range: 0, range_left: 0, run: 0, address: 0, run_left: 0 };
        if len != 0 {
            slices.seek(offset);
        }
        slices
    }

    /// Calls `take` for every piece with its host address and length. This is faster than
    /// iteration: between two ends of a range it reads only the list of runs.
    #[inline]
    pub(crate) fn each(mut self, mut take: impl FnMut(usize, usize)) {
        while let Some((address, len)) = self.advance() {
            take(address, len);
            if self.run_left != 0 {
                continue;
            }
            let mut room = self.left.min(self.range_left);
            let before = room;
            for run in self.buffer.run_list().get(self.run.wrapping_add(1)..).unwrap_or_default() {
                if run.bytes() > room {
                    break;
                }
                take(run.host_address(), run.bytes());
                room = room.wrapping_sub(run.bytes());
                self.run = self.run.wrapping_add(1);
            }
            let taken = before.wrapping_sub(room);
            self.left = self.left.wrapping_sub(taken);
            self.range_left = self.range_left.wrapping_sub(taken);
        }
    }

    /// Returns host addresses and lengths, merged if one piece follows another in the same region.
    pub(crate) fn spans(mut self) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        let ram = self.ram();
        let mut pieces = std::iter::from_fn(move || self.advance()).peekable();
        std::iter::from_fn(move || {
            let (start, mut len) = pieces.next()?;
            let mut end = start.wrapping_add(len);
            while let Some((_, more)) = pieces
                .next_if(|&(next, _)| next == end && ram.same_region(end.wrapping_sub(1), next))
            {
                len = len.wrapping_add(more);
                end = end.wrapping_add(more);
            }
            Some((start, len))
        })
    }

    /// Returns the RAM of the pieces.
    pub(crate) fn ram(&self) -> &'a GuestRam {
        self.buffer.ram()
    }

    /// Returns the bytes that have not been returned.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    #[inline]
    fn seek(&mut self, offset: usize) {
        let (index, place) = self.buffer.range_of(offset);
        self.range = index;
        let Some(range) = self.buffer.range_list().get(index) else { return };
        let into_range = offset.wrapping_sub(usize_of(place.start));
        self.range_left = usize_of(range.count).wrapping_sub(into_range);
        let position = usize::from(range.byte_offset).wrapping_add(into_range);
        let page = usize::from(place.first_page).wrapping_add(position >> PAGE_SHIFT);
        let (run, pages_before) = self.buffer.run_of(range, place, page);
        let in_page = position & PAGE_SIZE.wrapping_sub(1);
        self.enter_run(run, pages_before.wrapping_mul(PAGE_SIZE).wrapping_add(in_page));
    }

    #[inline]
    fn enter_run(&mut self, index: usize, into: usize) {
        self.run = index;
        if let Some(run) = self.buffer.run_list().get(index) {
            self.address = run.host_address().wrapping_add(into);
            self.run_left = run.bytes().saturating_sub(into);
        } else {
            self.run_left = 0;
        }
    }

    /// Returns the next piece: bytes of one run.
    #[inline]
    fn advance(&mut self) -> Option<(usize, usize)> {
        if self.left == 0 {
            return None;
        }
        if self.range_left == 0 {
            self.range = self.range.wrapping_add(1);
            let range = self.buffer.range_list().get(self.range)?;
            self.range_left = usize_of(range.count);
            self.enter_run(usize::from(range.first_run), usize::from(range.byte_offset));
        } else if self.run_left == 0 {
            self.enter_run(self.run.wrapping_add(1), 0);
        }
        let len = self.left.min(self.range_left).min(self.run_left);
        if len == 0 {
            return None;
        }
        let address = self.address;
        self.address = address.wrapping_add(len);
        self.left = self.left.wrapping_sub(len);
        self.range_left = self.range_left.wrapping_sub(len);
        self.run_left = self.run_left.wrapping_sub(len);
        Some((address, len))
    }
}

impl<'a> Iterator for Slices<'a> {
    type Item = VolatileSlice<'a>;

    #[inline]
    fn next(&mut self) -> Option<VolatileSlice<'a>> {
        // SAFETY: `advance` returns bytes of one run.
        self.advance().map(|(address, len)| unsafe { slice_at(address, len) })
    }

    /// Faster than calling `next` until the end (see `Slices::each`).
    #[inline]
    fn for_each<F: FnMut(Self::Item)>(self, mut take: F) {
        // SAFETY: `each` passes bytes of one run.
        self.each(|address, len| take(unsafe { slice_at(address, len) }));
    }
}

/// Returns a slice of `len` bytes at `address`.
///
/// # Safety
/// `address..address + len` must lie in one run of a buffer that 'a borrows. Every run was made
/// from pages of a region of that buffer's RAM (`RangeAssembler`), whose provenance `GuestRam::new`
/// exposed and which the buffer keeps mapped.
#[inline]
pub(crate) unsafe fn slice_at<'a>(address: usize, len: usize) -> VolatileSlice<'a> {
    // SAFETY: the caller guarantees it.
    unsafe { VolatileSlice::new(ptr::with_exposed_provenance_mut(address), len) }
}
