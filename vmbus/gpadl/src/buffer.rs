//! Guest bytes as a device sees them: ranges concatenated, pages merged into runs, every access bounded.

use vmbus_protocol::limits::PAGE_SIZE;
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
    pub(crate) count: u32,
    /// Position of its first byte in the buffer.
    pub(crate) start: u32,
    /// 0..=0xFFF.
    pub(crate) byte_offset: u16,
    /// Position of its first page among the buffer's pages.
    pub(crate) first_page: u16,
    /// Its first run: runs never span two ranges.
    pub(crate) first_run: u16,
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

    /// The list as range data, one word for each range and each page, as far as it has come: what makes the same buffer again.
    #[must_use]
    pub fn range_words(&self) -> Vec<u64> {
        let mut pages = self.guest_pages();
        let mut words = Vec::with_capacity(self.ranges.len().saturating_add(self.pages));
        for range in &self.ranges {
            let head = u64::from(range.byte_offset) << 32 | u64::from(range.count);
            let count =
                usize::from(range.byte_offset).saturating_add(usize_of(range.count)).div_ceil(PAGE_SIZE);
            words.push(head);
            words.extend(pages.by_ref().take(count));
        }
        words
    }

    /// Heap bytes that the lists take.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let ranges = self.ranges.capacity().wrapping_mul(size_of::<Range>());
        let runs = self.runs.capacity().wrapping_mul(size_of::<Run>());
        ranges.wrapping_add(runs).wrapping_add(self.starts.capacity().wrapping_mul(size_of::<u16>()))
    }

    #[inline]
    pub(crate) fn range_list(&self) -> &[Range] {
        &self.ranges
    }

    #[inline]
    pub(crate) fn run_list(&self) -> &[Run] {
        &self.runs
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
    pub(crate) fn run_of(&self, range: &Range, page: usize) -> (usize, usize) {
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
