//! The bytes of a guest buffer in the view of a device: ranges concatenated, pages merged into
//! runs, every access bounded.

use vmbus_protocol::limits::PAGE_SIZE;
use vmbus_protocol::num::{u64_of, usize_of};

use crate::ram::{GuestRam, Lookup};
use crate::run::Run;
use crate::segments::Segments;

/// Up to this number of runs, walking them is faster than a search.
const FEW_RUNS: usize = 8;

/// Most heap bytes for each page of a complete list. An index that would exceed it is not built.
/// That happens only for lists in which nearly every page is a range of its own, and there a range
/// has few runs to walk.
const MAX_BYTES_PER_PAGE: usize = 24;

/// A validated piece of guest memory: one or more ranges of pages, seen as one sequence of bytes.
///
/// Every page was guest RAM when the list arrived, and the buffer keeps that RAM mapped. The guest
/// may change the bytes at any moment, so a device must copy each value once and then check the
/// copy. A buffer can be emptied and filled again without allocation (see [`GuestBuffer::clear`]).
#[derive(Debug)]
pub struct GuestBuffer {
    ram: GuestRam,
    ranges: Segments<Range>,
    runs: Segments<Run>,
    /// The beginning of each range. Empty when there is only one.
    places: Vec<Place>,
    /// Position of each run's first page in the buffer. Empty if the positions follow without it
    /// ([`GuestBuffer::complete`]).
    starts: Vec<u16>,
    /// Bytes that can be accessed: 0 until the list is complete.
    len: usize,
    /// Bytes listed so far.
    listed: usize,
    pages: usize,
}

/// One range of a page list, in the 8 bytes that it takes on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    /// The bytes of the range.
    pub(crate) count: u32,
    /// Offset of the first byte in the first page: 0..=0xFFF.
    pub(crate) byte_offset: u16,
    /// Index of its first run. A run never spans two ranges.
    pub(crate) first_run: u16,
}

/// The beginning of a range in the buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    /// Position of its first byte.
    pub(crate) start: u32,
    /// Position of its first page among the buffer's pages.
    pub(crate) first_page: u16,
}

impl GuestBuffer {
    /// Returns an empty buffer over `ram`. A [`crate::RangeAssembler`] fills it.
    #[must_use]
    pub fn new(ram: GuestRam) -> Self {
        Self {
            ram,
            ranges: Segments::new(),
            runs: Segments::new(),
            places: Vec::new(),
            starts: Vec::new(),
            len: 0,
            listed: 0,
            pages: 0,
        }
    }

    /// Empties the buffer and keeps its memory for the next list.
    pub fn clear(&mut self) {
        self.ranges.clear();
        self.runs.clear();
        self.places.clear();
        self.starts.clear();
        self.len = 0;
        self.listed = 0;
        self.pages = 0;
    }

    /// Returns the RAM of the buffer.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Returns the bytes in all ranges together. 0 until the list is complete, so that no part of
    /// it can be accessed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true when the buffer has no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the bytes in the ranges that have arrived, even if their pages have not.
    #[must_use]
    pub fn listed_bytes(&self) -> usize {
        self.listed
    }

    /// Returns the number of listed pages. A repeated page counts each time.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Returns the number of runs of neighbouring pages after merging.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Returns the number of listed ranges.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.ranges.len()
    }

    /// Returns the byte offset of range `index` in its first page, and its bytes.
    #[must_use]
    pub fn range(&self, index: usize) -> Option<(usize, usize)> {
        self.ranges
            .joined()
            .get(index)
            .map(|range| (usize::from(range.byte_offset), usize_of(range.count)))
    }

    /// Returns whether the buffer is one range of whole pages, as a ring must be (vmbus-core 4.4).
    #[must_use]
    pub fn is_whole_pages(&self) -> bool {
        self.ranges.len() == 1
            && self.range(0).is_some_and(|(at, count)| at == 0 && count.is_multiple_of(PAGE_SIZE))
    }

    /// Returns the guest page numbers, in listed order. They are for tests, saved states and
    /// reports: no device needs them.
    pub fn guest_pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs.iter().flat_map(|run| {
            let first = self.ram.guest_page_of(run.host_page()).unwrap_or(u64::MAX);
            (0..u64_of(run.pages())).map(move |page| first.wrapping_add(page))
        })
    }

    /// Returns the guest page numbers as ranges, one for each run.
    pub fn guest_runs(&self) -> impl Iterator<Item = std::ops::Range<u64>> + '_ {
        self.runs.iter().filter_map(|run| {
            let first = self.ram.guest_page_of(run.host_page())?;
            Some(first..first.wrapping_add(u64_of(run.pages())))
        })
    }

    /// Returns the received part of the list as range data, one word for each range and each page.
    /// The same data makes the same buffer again.
    #[must_use]
    pub fn range_words(&self) -> Vec<u64> {
        let mut pages = self.guest_pages();
        let mut words = Vec::with_capacity(self.ranges.len().saturating_add(self.pages));
        for range in self.ranges.iter() {
            let head = u64::from(range.byte_offset) << 32 | u64::from(range.count);
            let count = usize::from(range.byte_offset)
                .saturating_add(usize_of(range.count))
                .div_ceil(PAGE_SIZE);
            words.push(head);
            words.extend(pages.by_ref().take(count));
        }
        words
    }

    /// Returns the heap bytes of the lists.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let places = self.places.capacity().wrapping_mul(size_of::<Place>());
        let starts = self.starts.capacity().wrapping_mul(size_of::<u16>());
        let lists = self.ranges.heap_bytes().wrapping_add(self.runs.heap_bytes());
        lists.wrapping_add(places).wrapping_add(starts)
    }

    #[inline]
    pub(crate) fn range_list(&self) -> &[Range] {
        self.ranges.joined()
    }

    #[inline]
    pub(crate) fn run_list(&self) -> &[Run] {
        self.runs.joined()
    }

    /// Returns the parts that a loop over page numbers reads, and those that it writes.
    #[inline]
    pub(crate) fn parts(&mut self) -> (Lookup<'_>, &mut Segments<Run>) {
        (self.ram.lookup(), &mut self.runs)
    }

    /// Begins a range. Its pages follow through `runs`. The assembler bounds the numbers.
    #[inline]
    pub(crate) fn begin_range(&mut self, byte_offset: u16, count: u32, pages: u16) {
        // MAX_BUFFER_PAGES bounds the number of runs.
        let Ok(first_run) = u16::try_from(self.runs.len()) else { return };
        self.ranges.push(Range { count, byte_offset, first_run });
        self.listed = self.listed.wrapping_add(usize_of(count));
        self.pages = self.pages.wrapping_add(usize::from(pages));
    }

    /// Completes the list after the last page: joins the lists, builds the data for random access,
    /// and makes the bytes accessible.
    pub(crate) fn complete(&mut self) {
        self.ranges.join();
        self.runs.join();
        self.place_ranges();
        self.index_runs();
        self.len = self.listed;
    }

    fn place_ranges(&mut self) {
        self.places.clear();
        if self.ranges.len() == 1 {
            return;
        }
        self.places.reserve_exact(self.ranges.len());
        let mut next = Place::default();
        for range in self.ranges.joined() {
            self.places.push(next);
            let end = usize_of(range.count).wrapping_add(usize::from(range.byte_offset));
            // MAX_BUFFER_PAGES keeps both far below the limit.
            next.start = next.start.wrapping_add(range.count);
            let pages = u16::try_from(end.div_ceil(PAGE_SIZE)).unwrap_or(u16::MAX);
            next.first_page = next.first_page.wrapping_add(pages);
        }
    }

    fn index_runs(&mut self) {
        self.starts.clear();
        let runs = self.runs.joined();
        let per_range = size_of::<Range>().wrapping_add(size_of::<Place>());
        let lists = per_range.wrapping_mul(self.ranges.len());
        let per_run = size_of::<Run>().wrapping_add(size_of::<u16>());
        let with_index = lists.wrapping_add(per_run.wrapping_mul(runs.len()));
        let too_large = with_index > self.pages.wrapping_mul(MAX_BYTES_PER_PAGE);
        if runs.len() <= FEW_RUNS || runs.len() == self.pages || too_large {
            return;
        }
        self.starts.reserve_exact(runs.len());
        let mut page = 0_u16;
        self.starts.extend(runs.iter().map(|run| {
            let first = page;
            page = page.wrapping_add(run.pages_u16());
            first
        }));
    }

    /// Frees the excess capacity.
    pub(crate) fn shrink(&mut self) {
        self.ranges.shrink();
        self.runs.shrink();
    }

    /// Returns the index of the range that contains byte `offset`, and its beginning.
    #[inline]
    pub(crate) fn range_of(&self, offset: usize) -> (usize, Place) {
        let after = self.places.partition_point(|place| usize_of(place.start) <= offset);
        let index = after.saturating_sub(1);
        (index, self.places.get(index).copied().unwrap_or_default())
    }

    /// Returns the run that contains page `page` of the buffer, which lies in `range` at `place`,
    /// and the number of its pages before that page.
    #[inline]
    pub(crate) fn run_of(&self, range: &Range, place: Place, page: usize) -> (usize, usize) {
        let runs = self.runs.joined();
        if runs.len() == self.pages {
            return (page, 0);
        }
        if self.starts.is_empty() {
            let mut first = usize::from(place.first_page);
            for (index, run) in runs.iter().enumerate().skip(usize::from(range.first_run)) {
                let after = first.wrapping_add(run.pages());
                if page < after {
                    return (index, page.wrapping_sub(first));
                }
                first = after;
            }
            return (runs.len(), 0);
        }
        let index =
            self.starts.partition_point(|&start| usize::from(start) <= page).saturating_sub(1);
        let first = self.starts.get(index).copied().map_or(0, usize::from);
        (index, page.wrapping_sub(first))
    }
}
