//! Guest bytes as a device sees them: ranges concatenated, pages merged into runs, every access bounded.

use std::ptr;

use thiserror::Error;
use vm_memory::VolatileSlice;
use vmbus_protocol::limits::{PAGE_SHIFT, PAGE_SIZE};
use vmbus_protocol::num::{u64_of, usize_of};

use crate::ram::{GuestRam, Lookup};
use crate::run::Run;

/// Up to this many runs, walking them beats a search.
const FEW_RUNS: usize = 8;

/// Heap bytes that a complete list may take for each page. An index that would pass it is left out: that happens only to lists in which
/// nearly every page is a range of its own, and there a range has few runs to walk.
const MAX_BYTES_PER_PAGE: usize = 24;

/// A validated piece of guest memory: one or more ranges of pages, seen as one sequence of bytes.
///
/// Every page lay in guest RAM when the list arrived, and the buffer keeps that RAM mapped. The guest may change the bytes at any moment;
/// what matters is copied out once and then judged. A buffer can be emptied and filled again without allocating (see [`GuestBuffer::clear`]).
#[derive(Debug)]
pub struct GuestBuffer {
    ram: GuestRam,
    ranges: Vec<Range>,
    runs: Vec<Run>,
    /// Position of each run's first page in the buffer; empty where it can be told without ([`GuestBuffer::index`]).
    starts: Vec<u16>,
    len: usize,
    pages: usize,
}

/// One range of a page list: `count` bytes from `byte_offset` into its first page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    /// Bytes.
    count: u32,
    /// Position of its first byte in the buffer.
    start: u32,
    /// 0..=0xFFF.
    byte_offset: u16,
    /// Position of its first page among the buffer's pages.
    first_page: u16,
    /// Its first run: runs never span two ranges.
    first_run: u16,
}

/// Why a part of a buffer could not be had.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BufferError {
    /// `offset + len` passes the end of the buffer.
    #[error("bytes {offset}..{offset}+{len} lie outside a guest buffer of {size} bytes")]
    OutOfBounds {
        /// First byte asked for.
        offset: usize,
        /// Bytes asked for.
        len: usize,
        /// Bytes in the buffer.
        size: usize,
    },
}

impl GuestBuffer {
    /// An empty buffer over `ram`; a [`crate::RangeAssembler`] fills it.
    #[must_use]
    pub fn new(ram: GuestRam) -> Self {
        Self { ram, ranges: Vec::new(), runs: Vec::new(), starts: Vec::new(), len: 0, pages: 0 }
    }

    /// Empties the buffer and keeps its memory for the next list.
    pub fn clear(&mut self) {
        self.ranges.clear();
        self.runs.clear();
        self.starts.clear();
        self.len = 0;
        self.pages = 0;
    }

    /// The RAM that the buffer lies in.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Bytes in all ranges together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when it names no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Pages listed, each as often as it is listed.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Runs of neighbouring pages after merging.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Ranges listed.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.ranges.len()
    }

    /// Byte offset of range `index` in its first page, and its bytes.
    #[must_use]
    pub fn range(&self, index: usize) -> Option<(usize, usize)> {
        self.ranges.get(index).map(|range| (usize::from(range.byte_offset), usize_of(range.count)))
    }

    /// True when it is one range of whole pages: what a ring must be (vmbus-core 4.4).
    #[must_use]
    pub fn is_whole_pages(&self) -> bool {
        matches!(self.range(0), Some((0, count)) if self.ranges.len() == 1 && count.is_multiple_of(PAGE_SIZE))
    }

    /// The guest page numbers, in listed order. For tests, saving and showing: no device needs them.
    pub fn guest_pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs.iter().flat_map(|run| {
            let first = self.ram.guest_page_of(run.host_page()).unwrap_or(u64::MAX);
            (0..u64_of(run.pages())).map(move |page| first.wrapping_add(page))
        })
    }

    /// Heap bytes that the lists take.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let ranges = self.ranges.capacity().wrapping_mul(size_of::<Range>());
        let runs = self.runs.capacity().wrapping_mul(size_of::<Run>());
        ranges.wrapping_add(runs).wrapping_add(self.starts.capacity().wrapping_mul(size_of::<u16>()))
    }

    /// The pieces of host memory that hold `len` bytes from `offset`, in order.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`].
    #[inline]
    pub fn slices(&self, offset: usize, len: usize) -> Result<Slices<'_>, BufferError> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(BufferError::OutOfBounds { offset, len, size: self.len });
        }
        let mut slices =
            Slices { buffer: self, left: len, range: 0, range_left: 0, run: 0, address: 0, run_left: 0 };
        if len != 0 {
            slices.seek(offset);
        }
        Ok(slices)
    }

    /// Adds to `out` the iovecs of `len` bytes from `offset`, merged where they touch. They are valid while `self` lives.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`]; `out` is then as it was.
    #[inline]
    pub fn iovecs(&self, offset: usize, len: usize, out: &mut Vec<libc::iovec>) -> Result<(), BufferError> {
        let slices = self.slices(offset, len)?;
        let mut end: *mut u8 = ptr::null_mut();
        for (base, bytes) in slices.raw() {
            match out.last_mut() {
                // Two ranges may touch: `end` is null before the first piece, so earlier iovecs of the caller stay as they are.
                Some(last) if base == end => last.iov_len = last.iov_len.wrapping_add(bytes),
                _ => out.push(libc::iovec { iov_base: base.cast(), iov_len: bytes }),
            }
            end = base.wrapping_add(bytes);
        }
        Ok(())
    }

    /// Copies bytes from guest memory at `offset` into all of `to`.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`]; `to` is then untouched.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), BufferError> {
        let mut rest = to;
        for slice in self.slices(offset, rest.len())? {
            let Some((now, later)) = rest.split_at_mut_checked(slice.len()) else { break };
            slice.copy_to(now);
            rest = later;
        }
        Ok(())
    }

    /// Copies all of `from` into guest memory at `offset`.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`]; guest memory is then untouched.
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<(), BufferError> {
        let mut rest = from;
        for slice in self.slices(offset, rest.len())? {
            let Some((now, later)) = rest.split_at_checked(slice.len()) else { break };
            slice.copy_from(now);
            rest = later;
        }
        Ok(())
    }

    /// What a loop over page numbers reads and what it writes.
    #[inline]
    pub(crate) fn parts(&mut self) -> (Lookup<'_>, &mut Vec<Run>) {
        (self.ram.lookup(), &mut self.runs)
    }

    /// Opens a range; its pages follow through `runs`. Numbers are bounded by the assembler.
    pub(crate) fn begin_range(&mut self, byte_offset: u16, count: u32, pages: u16) {
        let (Ok(start), Ok(first_page), Ok(first_run)) =
            (u32::try_from(self.len), u16::try_from(self.pages), u16::try_from(self.runs.len()))
        else {
            // MAX_BUFFER_PAGES keeps all three far below: nothing to describe a larger buffer with.
            return;
        };
        self.ranges.push(Range { count, start, byte_offset, first_page, first_run });
        self.len = self.len.wrapping_add(usize_of(count));
        self.pages = self.pages.wrapping_add(usize::from(pages));
    }

    /// Builds the index for random access, after the last page came.
    pub(crate) fn index(&mut self) {
        self.starts.clear();
        let lists = size_of::<Range>().wrapping_mul(self.ranges.len());
        let per_run = size_of::<Run>().wrapping_add(size_of::<u16>());
        let with_index = lists.wrapping_add(per_run.wrapping_mul(self.runs.len()));
        let too_large = with_index > self.pages.wrapping_mul(MAX_BYTES_PER_PAGE);
        if self.runs.len() <= FEW_RUNS || self.runs.len() == self.pages || too_large {
            return;
        }
        self.starts.reserve_exact(self.runs.len());
        let mut page = 0_u16;
        for run in &self.runs {
            self.starts.push(page);
            page = page.wrapping_add(u16::try_from(run.pages()).unwrap_or(u16::MAX));
        }
    }

    /// Gives back what growing took too much.
    pub(crate) fn shrink(&mut self) {
        self.ranges.shrink_to_fit();
        self.runs.shrink_to_fit();
    }

    /// The run that holds page `page` of the buffer, which lies in `range`, and how many of its pages lie before that page.
    #[inline]
    fn run_of(&self, range: &Range, page: usize) -> (usize, usize) {
        if self.runs.len() == self.pages {
            return (page, 0);
        }
        if self.starts.is_empty() {
            let mut first = usize::from(range.first_page);
            for (index, run) in self.runs.iter().enumerate().skip(usize::from(range.first_run)) {
                let after = first.wrapping_add(run.pages());
                if page < after {
                    return (index, page.wrapping_sub(first));
                }
                first = after;
            }
            return (self.runs.len(), 0);
        }
        let index = self.starts.partition_point(|&start| usize::from(start) <= page).saturating_sub(1);
        let first = self.starts.get(index).copied().map_or(0, usize::from);
        (index, page.wrapping_sub(first))
    }
}

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
    /// As host addresses and lengths, for those who build iovecs.
    pub(crate) fn raw(mut self) -> impl Iterator<Item = (*mut u8, usize)> + use<'a> {
        std::iter::from_fn(move || {
            self.advance().map(|(address, len)| (ptr::with_exposed_provenance_mut(address), len))
        })
    }

    /// Goes to byte `offset`, which the caller has checked to be inside.
    #[inline]
    fn seek(&mut self, offset: usize) {
        let ranges = &self.buffer.ranges;
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
        if let Some(run) = self.buffer.runs.get(index) {
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
            let range = self.buffer.ranges.get(self.range)?;
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
