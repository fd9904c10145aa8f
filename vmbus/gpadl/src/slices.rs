//! A part of a guest buffer, piece by piece.

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
    /// Bytes still to be handed out.
    left: usize,
    range: usize,
    /// Bytes of the current range still to come.
    range_left: usize,
    run: usize,
    /// Host address of the next byte.
    address: usize,
    /// Bytes of the current run from there.
    run_left: usize,
}

impl<'a> Slices<'a> {
    /// `len` bytes from `offset`, which the caller has checked to be inside.
    #[inline]
    pub(crate) fn new(buffer: &'a GuestBuffer, offset: usize, len: usize) -> Self {
        let mut slices = Self { buffer, left: len, range: 0, range_left: 0, run: 0, address: 0, run_left: 0 };
        if len != 0 {
            slices.seek(offset);
        }
        slices
    }

    /// As host addresses and lengths, for those who build iovecs.
    pub(crate) fn raw(mut self) -> impl Iterator<Item = (*mut u8, usize)> + use<'a> {
        std::iter::from_fn(move || {
            self.advance().map(|(address, len)| (ptr::with_exposed_provenance_mut(address), len))
        })
    }

    /// As host addresses and lengths, merged where one piece follows another in the same region.
    pub(crate) fn spans(self) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        let ram = self.ram();
        let mut raw = self.raw().map(|(start, len)| (start.addr(), len)).peekable();
        std::iter::from_fn(move || {
            let (start, mut len) = raw.next()?;
            let mut end = start.wrapping_add(len);
            while let Some((_, more)) =
                raw.next_if(|&(next, _)| next == end && ram.same_region(end.wrapping_sub(1), next))
            {
                len = len.wrapping_add(more);
                end = end.wrapping_add(more);
            }
            Some((start, len))
        })
    }

    /// The RAM that the pieces lie in.
    pub(crate) fn ram(&self) -> &'a GuestRam {
        self.buffer.ram()
    }

    /// Bytes still to be handed out.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    #[inline]
    fn seek(&mut self, offset: usize) {
        let ranges = self.buffer.range_list();
        self.range = if ranges.len() == 1 {
            0
        } else {
            ranges.partition_point(|range| usize_of(range.start) <= offset).saturating_sub(1)
        };
        let Some(range) = ranges.get(self.range) else { return };
        let into_range = offset.wrapping_sub(usize_of(range.start));
        self.range_left = usize_of(range.count).wrapping_sub(into_range);
        let position = usize::from(range.byte_offset).wrapping_add(into_range);
        let page = usize::from(range.first_page).wrapping_add(position >> PAGE_SHIFT);
        let (run, pages_before) = self.buffer.run_of(range, page);
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
        let (address, len) = self.advance()?;
        let start = ptr::with_exposed_provenance_mut(address);
        // SAFETY: every run was made from pages of a region of `buffer.ram` (RangeAssembler), whose provenance `GuestRam::new` exposed;
        // `advance` keeps `address..address + len` inside one run, and 'a borrows the buffer, which keeps that RAM mapped.
        Some(unsafe { VolatileSlice::new(start, len) })
    }
}
