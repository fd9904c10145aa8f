//! The conversion of range data (GPADL headers and bodies, GPA-direct packets) into a validated
//! buffer. Pages are processed as they arrive.

use std::borrow::BorrowMut;

use thiserror::Error;
use vmbus_protocol::limits::{MAX_BUFFER_PAGES, PAGE_SIZE};
use vmbus_protocol::num::{high_u32, low_u32, usize_of};

use crate::buffer::GuestBuffer;
use crate::ram::Lookup;
use crate::run::{HostPage, Run};

/// The reasons to refuse range data.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeError {
    /// The list has no range.
    #[error("range count is 0")]
    NoRanges,
    /// The number of declared bytes is not a multiple of 8, or is too small for the ranges' own
    /// words.
    #[error("{bytes} bytes cannot hold {ranges} ranges")]
    Size {
        /// Declared bytes of range data.
        bytes: usize,
        /// Declared ranges.
        ranges: u32,
    },
    /// A range has no bytes.
    #[error("a range has byte count 0")]
    Empty,
    /// The first byte is not in the first page.
    #[error("byte offset {0:#x} is outside a page")]
    Offset(u32),
    /// `offset + count` does not fit 32 bits.
    #[error("byte offset {offset:#x} + byte count {count:#x} overflows")]
    Overflow {
        /// Byte offset in the first page.
        offset: u32,
        /// Bytes.
        count: u32,
    },
    /// A range needs more page numbers than the declared data holds.
    #[error("a range needs {needed} pages, the list has {present} more words")]
    ShortList {
        /// Pages that the range spans.
        needed: usize,
        /// Words left in the declared data.
        present: usize,
    },
    /// The list has more pages than one buffer may have.
    #[error("more than {MAX_BUFFER_PAGES} pages")]
    TooManyPages,
    /// A page is not guest RAM: MMIO, a hole, ROM, or beyond the address space.
    #[error("page {0:#x} is not guest RAM")]
    NotRam(u64),
}

/// A buffer that a [`RangeAssembler`] can fill. The assembler either owns it, or borrows it
/// exclusively so that the buffer's memory can be used again without allocation.
///
/// Sealed, because an implementation that returned a different buffer in each call would mix the
/// page lists of two buffers and create runs of unchecked length.
pub trait Destination: BorrowMut<GuestBuffer> + sealed::Sealed {}

impl Destination for GuestBuffer {}
impl Destination for &mut GuestBuffer {}

mod sealed {
    use crate::buffer::GuestBuffer;

    pub trait Sealed {}
    impl Sealed for GuestBuffer {}
    impl Sealed for &mut GuestBuffer {}
}

/// An assembler that takes range data in pieces and fills a [`GuestBuffer`].
///
/// A range is one word {byte count, byte offset << 32} and its page numbers, one word each
/// (vmbus-core 4.3). Words may be split between pieces in any way. Each page number is checked
/// against RAM when it arrives, so memory grows with the bytes received, never with the bytes
/// declared, and the first bad page ends the list.
///
/// The assembler keeps its buffer until [`RangeAssembler::finish`] returns it, so the rest of a
/// list can only go to the same buffer as its beginning. The previous interface took the buffer
/// with every piece; two assemblers could swap buffers, and a run grew beyond guest RAM. This does
/// not compile any more:
///
/// ```compile_fail,E0061
/// # use vmbus_gpadl::{GuestBuffer, GuestRam, RangeAssembler};
/// # fn swap(ram: GuestRam) -> Result<(), vmbus_gpadl::RangeError> {
/// let mut other = GuestBuffer::new(ram.clone());
/// let mut assembler = RangeAssembler::begin(GuestBuffer::new(ram), 1, 24)?;
/// assembler.push(&mut other, &[0; 8])?;
/// # Ok(())
/// # }
/// ```
///
/// No other code can access a borrowed buffer while the assembler exists:
///
/// ```compile_fail,E0499
/// # use vmbus_gpadl::{GuestBuffer, GuestRam, RangeAssembler};
/// # fn swap(ram: GuestRam) -> Result<(), vmbus_gpadl::RangeError> {
/// let (mut one, mut two) = (GuestBuffer::new(ram.clone()), GuestBuffer::new(ram));
/// let mut assembler = RangeAssembler::begin(&mut one, 1, 24)?;
/// std::mem::swap(&mut one, &mut two);
/// assembler.push(&[0; 8])?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RangeAssembler<B = GuestBuffer> {
    buffer: B,
    ranges_left: u32,
    /// Declared words that have not arrived.
    words_left: usize,
    /// Pages of the current range that have not arrived.
    pages_left: usize,
    /// The last page of the current run.
    last: HostPage,
}

impl<B: Destination> RangeAssembler<B> {
    /// Starts a list of `ranges` ranges in `bytes` bytes. Empties `buffer` first and keeps its
    /// memory.
    ///
    /// # Errors
    /// [`RangeError::NoRanges`] or [`RangeError::Size`].
    #[inline]
    pub fn begin(mut buffer: B, ranges: u32, bytes: usize) -> Result<Self, RangeError> {
        buffer.borrow_mut().clear();
        if ranges == 0 {
            return Err(RangeError::NoRanges);
        }
        let words = bytes / WORD;
        if !bytes.is_multiple_of(WORD) || words < usize_of(ranges) {
            return Err(RangeError::Size { bytes, ranges });
        }
        Ok(Self {
            buffer,
            ranges_left: ranges,
            words_left: words,
            pages_left: 0,
            last: HostPage::NONE,
        })
    }

    /// Fills `buffer` with a list of `ranges` ranges that is complete in `bytes`.
    ///
    /// # Errors
    /// [`RangeError`]; a borrowed buffer then names no byte.
    pub fn assemble(buffer: B, ranges: u32, bytes: &[u8]) -> Result<B, RangeError> {
        let mut assembler = Self::begin(buffer, ranges, bytes.len())?;
        assembler.push(bytes)?;
        // All declared words have arrived, and `push` refuses a list that is then not complete.
        assembler.finish().ok_or(RangeError::ShortList { needed: 1, present: 0 })
    }

    /// Returns the number of ranges that have not begun, and of declared words that have not
    /// arrived.
    #[must_use]
    pub fn left(&self) -> (u32, usize) {
        (self.ranges_left, self.words_left)
    }

    /// Returns the buffer with the received part of the list. None of its bytes can be accessed.
    #[inline]
    #[must_use]
    pub fn buffer(&self) -> &GuestBuffer {
        self.buffer.borrow()
    }

    /// Takes the next piece. An incomplete word at its end and all bytes past the declared end are
    /// ignored. Returns true when the list is complete: [`RangeAssembler::finish`] then returns the
    /// buffer.
    /// buffer.
    ///
    /// # Errors
    /// [`RangeError`]: the list is refused. Every later piece is refused too, and the buffer is not
    /// returned.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> Result<bool, RangeError> {
        let taken = self.take(bytes);
        if taken.is_err() {
            self.refuse();
        }
        taken
    }

    /// Returns the buffer, whose bytes can be accessed from then on. `None` when the list is not
    /// complete or was refused; an owned buffer is then dropped, and a borrowed one has no bytes.
    #[inline]
    #[must_use]
    pub fn finish(mut self) -> Option<B> {
        if !self.is_complete() {
            return None;
        }
        self.buffer.borrow_mut().complete();
        Some(self.buffer)
    }

    #[inline]
    fn is_complete(&self) -> bool {
        self.ranges_left == 0 && self.pages_left == 0
    }

    /// Ends the list after an error. The counts no longer match the lists, so a continued list
    /// could make a run longer than its range. A missing range and missing words make the list
    /// incomplete permanently.
    #[cold]
    fn refuse(&mut self) {
        (self.ranges_left, self.words_left, self.pages_left) = (1, 0, 0);
    }

    #[inline]
    fn take(&mut self, bytes: &[u8]) -> Result<bool, RangeError> {
        let mut words = bytes.as_chunks::<WORD>().0;
        if let Some(declared) = words.get(..self.words_left) {
            words = declared;
        }
        self.words_left = self.words_left.wrapping_sub(words.len());
        let mut unread = words.len();
        while !self.is_complete() {
            if self.pages_left == 0 {
                let Some((head, rest)) = words.split_first() else { break };
                words = rest;
                unread = unread.wrapping_sub(1);
                self.begin_range(u64::from_le_bytes(*head), unread)?;
            }
            let (pages, rest) = words.split_at_checked(self.pages_left).unwrap_or((words, &[]));
            self.push_pages(pages)?;
            self.pages_left = self.pages_left.wrapping_sub(pages.len());
            words = rest;
            unread = unread.wrapping_sub(pages.len());
            if words.is_empty() {
                break;
            }
        }
        if self.is_complete() {
            return Ok(true);
        }
        if self.words_left == 0 {
            return Err(RangeError::ShortList { needed: self.pages_left.max(1), present: 0 });
        }
        Ok(false)
    }

    /// Begins a range. `unread`: words of this piece after the range's own word.
    fn begin_range(&mut self, head: u64, unread: usize) -> Result<(), RangeError> {
        let (count, offset) = (low_u32(head), high_u32(head));
        if count == 0 {
            return Err(RangeError::Empty);
        }
        let byte_offset = match u16::try_from(offset) {
            Ok(fits) if usize::from(fits) < PAGE_SIZE => fits,
            _ => return Err(RangeError::Offset(offset)),
        };
        let end = offset.checked_add(count).ok_or(RangeError::Overflow { offset, count })?;
        let needed = usize_of(end).div_ceil(PAGE_SIZE);
        let present = self.words_left.wrapping_add(unread);
        if needed > present {
            return Err(RangeError::ShortList { needed, present });
        }
        let buffer = self.buffer.borrow_mut();
        let total = buffer.pages().wrapping_add(needed);
        let (Ok(pages), true) = (u16::try_from(needed), total <= MAX_BUFFER_PAGES) else {
            return Err(RangeError::TooManyPages);
        };
        buffer.begin_range(byte_offset, count, pages);
        self.ranges_left = self.ranges_left.wrapping_sub(1);
        self.pages_left = needed;
        self.last = HostPage::NONE;
        Ok(())
    }

    #[inline]
    fn push_pages(&mut self, pages: &[[u8; WORD]]) -> Result<(), RangeError> {
        let (ram, runs) = self.buffer.borrow_mut().parts();
        let mut rest = pages;
        while !rest.is_empty() {
            let open = runs.open(rest.len());
            let room = open.capacity().wrapping_sub(open.len());
            let (now, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            self.last = add_pages(ram, self.last, open, now)?;
            rest = later;
        }
        Ok(())
    }
}

impl RangeAssembler<&mut GuestBuffer> {
    /// Keeps the list for longer than the borrow: moves the received part out of the borrowed
    /// buffer, which is left empty. Lists that are complete in one piece need no such move, which
    /// costs as much as reading a short list.
    #[must_use]
    pub fn into_owned(self) -> RangeAssembler {
        let Self { buffer, ranges_left, words_left, pages_left, last } = self;
        let ram = buffer.ram().clone();
        let buffer = std::mem::replace(buffer, GuestBuffer::new(ram));
        RangeAssembler { buffer, ranges_left, words_left, pages_left, last }
    }
}

/// Adds `pages` to the runs in `open`, which has space for as many; `last` is the last page of the
/// last run. Returns the last page.
///
/// No branch depends on the positions of the pages: each page is written to the position of its
/// run, whether it extends the current run or begins the next one.
/// the next one, it is written to its place.
#[inline(never)]
fn add_pages(
    ram: Lookup<'_>,
    mut last: HostPage,
    open: &mut Vec<Run>,
    pages: &[[u8; WORD]],
) -> Result<HostPage, RangeError> {
    let room = open.capacity().wrapping_sub(open.len());
    let Some(pages) = pages.get(..room.min(pages.len())) else { return Ok(last) };
    // The position of the current run: the last run. Without a run, the first page begins the first
    // run.
    let mut at = open.len().wrapping_sub(1);
    let mut run = open.last().copied().unwrap_or(Run::NONE);
    if open.is_empty() {
        last = HostPage::NONE;
    }
    let places = open.as_mut_ptr();
    for page in pages {
        let pfn = u64::from_le_bytes(*page);
        let page = ram.host_page(pfn).ok_or(RangeError::NotRam(pfn))?;
        let follows = page.follows(last);
        run = if follows { run.longer() } else { Run::one(page) };
        at = at.wrapping_add(usize::from(!follows));
        // SAFETY: `at` is the position of an existing run, or at most one behind it for each page,
        // and the list has space for one run for each page. Without a run it becomes 0 with the
        // first page, as no page follows none.
        unsafe { places.wrapping_add(at).write(run) };
        last = page;
    }
    // SAFETY: all positions up to `at` have been written, each when `at` reached it, and they are
    // inside the list's space as shown above.
    unsafe { open.set_len(at.wrapping_add(1)) };
    Ok(last)
}

/// Bytes of one word of range data.
const WORD: usize = 8;
