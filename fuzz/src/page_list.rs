//! Guest memory of several regions, page lists made from the fuzzer's bytes, and a naive reading of
//! them for comparison.

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmbus_gpadl::{BufferError, GuestBuffer, GuestRam, RangeError};
use vmbus_protocol::limits::MAX_BUFFER_PAGES;

use crate::input::Input;

pub(crate) const PAGE: usize = 4096;
/// Most words of one list: more than the 8,191 that a GPADL can have.
const MAX_WORDS: usize = 8400;
/// Parts of a buffer that one input may check.
const MAX_QUERIES: usize = 6;
/// Most bytes that are copied at a time.
const MAX_COPY: usize = 5 * PAGE;

/// Guest regions as (first page number, pages): a hole, two that touch, one above 4 GiB.
const REGIONS: [(u64, u64); 4] = [(0, 64), (0x100, 64), (0x140, 16), (1 << 20, 2)];
/// Page numbers at edges, and some that only a hostile guest uses.
const ODD_PAGES: [u64; 16] = [
    63,
    64,
    0xFF,
    0x100,
    0x13F,
    0x140,
    0x14F,
    0x150,
    (1 << 20) - 1,
    1 << 20,
    (1 << 20) + 2,
    1 << 32,
    1 << 52,
    u64::MAX >> 12,
    1 << 63,
    u64::MAX,
];

/// Guest RAM, and a copy of its bytes that only the naive model writes.
pub(crate) struct Memory {
    pub(crate) ram: GuestRam,
    /// (first page number, pages, host address) of each region.
    regions: Vec<(u64, u64, usize)>,
    shadow: Vec<Vec<u8>>,
    bytes: Vec<u8>,
    expected: Vec<u8>,
    pieces: Vec<(usize, usize)>,
    iovecs: Vec<libc::iovec>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let ranges =
            REGIONS.map(|(first, pages)| (GuestAddress(first << 12), pages as usize * PAGE));
        let map = GuestMemoryMmap::from_ranges(&ranges).expect("memory for the guest");
        let regions: Vec<_> = REGIONS
            .iter()
            .map(|&(first, pages)| {
                let host =
                    map.get_host_address(GuestAddress(first << 12)).expect("a region of the map");
                (first, pages, host.expose_provenance())
            })
            .collect();
        let shadow = regions.iter().map(|(_, pages, _)| vec![0; *pages as usize * PAGE]).collect();
        let ram = GuestRam::new(map).expect("whole pages");
        Self {
            ram,
            regions,
            shadow,
            bytes: Vec::new(),
            expected: Vec::new(),
            pieces: Vec::new(),
            iovecs: Vec::new(),
        }
    }

    /// Returns the host address of a guest page.
    fn host(&self, page: u64) -> Option<usize> {
        let (first, _, host) = self
            .regions
            .iter()
            .find(|(first, pages, _)| (*first..first + pages).contains(&page))?;
        Some(host + (page - first) as usize * PAGE)
    }

    /// Returns the model's bytes for `len` host bytes of one page.
    fn shadow(&mut self, host: usize, len: usize) -> &mut [u8] {
        let index = self
            .regions
            .iter()
            .position(|(_, pages, base)| (*base..base + *pages as usize * PAGE).contains(&host))
            .expect("an address in guest RAM");
        &mut self.shadow[index][host - self.regions[index].2..][..len]
    }
}

/// Converts 16 bits to a guest page number: most of them are RAM.
fn page_number(bits: u16) -> u64 {
    match bits {
        0..0xE000 => {
            let mut nth = u64::from(bits) % REGIONS.iter().map(|(_, pages)| pages).sum::<u64>();
            for (first, pages) in REGIONS {
                if nth < pages {
                    return first + nth;
                }
                nth -= pages;
            }
            0
        }
        0xE000..0xF000 => u64::from(bits & 0x3FF),
        _ => ODD_PAGES[usize::from(bits % 16)],
    }
}

/// Makes the words of a page list: runs of pages from a few bytes each, single page numbers, and
/// arbitrary words.
pub(crate) fn words(input: &mut Input<'_>, words: &mut Vec<u64>) {
    words.clear();
    while !input.is_empty() && words.len() < MAX_WORDS {
        let op = input.u8();
        match op & 3 {
            0 => {
                // Long runs take most of the time and reveal little that short ones do not.
                let longest = match op >> 5 {
                    0..4 => 0x3F,
                    4..7 => 0x1FF,
                    _ => 0x1FFF,
                };
                let (pages, first) = (input.u16() & longest, input.u16());
                let (offset, trim) =
                    (u32::from(input.u16() & 0xFFF), u32::from(input.u16() & 0xFFF));
                let count = (u32::from(pages) * 4096).wrapping_sub(offset).wrapping_sub(trim);
                words.push(u64::from(count) | u64::from(offset) << 32);
                for n in 0..pages.min((MAX_WORDS - words.len()) as u16) {
                    words.push(match op >> 2 & 7 {
                        0..4 => page_number(first).wrapping_add(u64::from(n) % 61),
                        4 => page_number(first.wrapping_sub(n)),
                        5 => page_number(first),
                        6 => page_number(first.wrapping_add(n.wrapping_mul(7))),
                        _ => page_number(first.wrapping_add(n / 3)),
                    });
                }
            }
            1 => words.push(input.u64()),
            2 => {
                for _ in 0..op >> 2 & 15 {
                    words.push(page_number(input.u16()));
                }
            }
            _ => words.push(u64::from(input.u32()) | u64::from(input.u16()) << 32),
        }
    }
}

/// A page list in decoded form.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct List {
    /// (byte offset in the first page, bytes, position of the first page in `pages`).
    ranges: Vec<(usize, usize, usize)>,
    pages: Vec<u64>,
    len: usize,
}

/// A limit on bytes, which is checked after whole chunks of `chunk_words` words.
pub(crate) struct Cap {
    pub(crate) bytes: u64,
    pub(crate) chunk_words: usize,
}

/// The result of reading a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Complete(List),
    Incomplete,
    OverCap,
    Refused(RangeError),
}

/// Reads `words`, of which `declared` bytes were declared, as `ranges` ranges, one word after the
/// other.
pub(crate) fn parse(
    memory: &Memory,
    ranges: u32,
    declared: usize,
    words: &[u64],
    cap: Option<&Cap>,
) -> Parsed {
    if ranges == 0 {
        return Parsed::Refused(RangeError::NoRanges);
    }
    let total = declared / 8;
    if !declared.is_multiple_of(8) || total < ranges as usize {
        return Parsed::Refused(RangeError::Size { bytes: declared, ranges });
    }
    let words = &words[..words.len().min(total)];
    let over = |list: &List| cap.is_some_and(|cap| list.len as u64 > cap.bytes);
    let mut list = List::default();
    let mut pages_left = 0;
    for (at, &word) in words.iter().enumerate() {
        if cap.is_some_and(|cap| at != 0 && at % cap.chunk_words == 0) && over(&list) {
            return Parsed::OverCap;
        }
        if pages_left == 0 {
            if list.ranges.len() == ranges as usize {
                break;
            }
            let (count, offset) = (word as u32, (word >> 32) as u32);
            if count == 0 {
                return Parsed::Refused(RangeError::Empty);
            }
            if offset > 0xFFF {
                return Parsed::Refused(RangeError::Offset(offset));
            }
            let end = u64::from(offset) + u64::from(count);
            if end > u64::from(u32::MAX) {
                return Parsed::Refused(RangeError::Overflow { offset, count });
            }
            let (needed, present) = (end.div_ceil(4096) as usize, total - at - 1);
            if needed > present {
                return Parsed::Refused(RangeError::ShortList { needed, present });
            }
            if list.pages.len() + needed > MAX_BUFFER_PAGES {
                return Parsed::Refused(RangeError::TooManyPages);
            }
            list.ranges.push((offset as usize, count as usize, list.pages.len()));
            list.len += count as usize;
            pages_left = needed;
        } else if memory.host(word).is_none() {
            return Parsed::Refused(RangeError::NotRam(word));
        } else {
            list.pages.push(word);
            pages_left -= 1;
        }
    }
    let complete = pages_left == 0 && list.ranges.len() == ranges as usize;
    match () {
        // A list that can never become complete is refused before its bytes are checked.
        () if !complete && words.len() == total => {
            Parsed::Refused(RangeError::ShortList { needed: 1, present: 0 })
        }
        () if over(&list) => Parsed::OverCap,
        () if complete => Parsed::Complete(list),
        () => Parsed::Incomplete,
    }
}

impl List {
    /// Adds the host memory of bytes `offset..offset + len`, page by page.
    fn pieces(&self, memory: &Memory, offset: usize, len: usize, out: &mut Vec<(usize, usize)>) {
        out.clear();
        let (mut skip, mut left) = (offset, len);
        for &(byte_offset, count, first_page) in &self.ranges {
            if skip >= count {
                skip -= count;
                continue;
            }
            let (mut at, end) = (byte_offset + skip, byte_offset + count);
            skip = 0;
            while at < end && left > 0 {
                let bytes = (PAGE - at % PAGE).min(end - at).min(left);
                let page = self.pages[first_page + at / PAGE];
                let host = memory.host(page).expect("a page that was accepted");
                out.push((host + at % PAGE, bytes));
                at += bytes;
                left -= bytes;
            }
        }
    }

    /// Returns the number of runs. Neighbouring pages of one range and one region form one run.
    fn runs(&self, memory: &Memory) -> usize {
        let region = |page: u64| {
            memory.regions.iter().position(|(first, n, _)| (*first..first + n).contains(&page))
        };
        let mut runs = 0;
        for (index, &(_, _, first)) in self.ranges.iter().enumerate() {
            let end = self.ranges.get(index + 1).map_or(self.pages.len(), |next| next.2);
            let pages = &self.pages[first..end];
            let breaks = pages
                .windows(2)
                .filter(|two| two[1] != two[0] + 1 || region(two[0]) != region(two[1]));
            runs += 1 + breaks.count();
        }
        runs
    }
}

/// Compares a buffer with the list from which it was made: as a whole, and in the parts that the
/// input selects.
pub(crate) fn check(memory: &mut Memory, buffer: &GuestBuffer, list: &List, input: &mut Input<'_>) {
    assert_eq!(
        (buffer.len(), buffer.pages(), buffer.ranges(), buffer.is_empty()),
        (list.len, list.pages.len(), list.ranges.len(), list.len == 0)
    );
    for (index, (byte_offset, count, _)) in list.ranges.iter().enumerate() {
        assert_eq!(buffer.range(index), Some((*byte_offset, *count)));
    }
    assert_eq!(buffer.range(list.ranges.len()), None);
    assert!(buffer.guest_pages().eq(list.pages.iter().copied()));
    assert_eq!(buffer.runs(), list.runs(memory));
    let whole = matches!(list.ranges[..], [(0, count, 0)] if count.is_multiple_of(PAGE));
    assert_eq!(buffer.is_whole_pages(), whole);
    check_part(memory, buffer, list, 0, list.len);
    for _ in 0..MAX_QUERIES {
        if input.is_empty() {
            break;
        }
        let how = input.u8();
        let offset = if how & 1 == 0 { input.u16().into() } else { input.u32() as usize };
        let len = usize::from(input.u16()) << (how >> 1 & 7);
        // The offset is usually near the end of the bytes or inside them.
        let offset = if how & 0x40 == 0 { offset % (list.len + 1) } else { offset };
        let len = if how & 0x80 == 0 { len.min(list.len.saturating_sub(offset)) } else { len };
        check_part(memory, buffer, list, offset, len);
        if len <= MAX_COPY {
            check_copy(memory, buffer, list, offset, len);
        }
    }
}

fn check_part(memory: &mut Memory, buffer: &GuestBuffer, list: &List, offset: usize, len: usize) {
    let mut iovecs = std::mem::take(&mut memory.iovecs);
    let mut pieces = std::mem::take(&mut memory.pieces);
    iovecs.clear();
    // Iovecs of the caller must stay.
    iovecs.push(libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 7 });
    if offset + len > list.len {
        let error = Some(BufferError::OutOfBounds { offset, len, size: list.len });
        assert_eq!(buffer.slices(offset, len).err(), error);
        assert_eq!(buffer.iovecs(offset, len, &mut iovecs).err(), error);
        assert_eq!(iovecs.len(), 1);
    } else {
        list.pieces(memory, offset, len, &mut pieces);
        let mut expected = pieces.iter().copied();
        for slice in buffer.slices(offset, len).expect("inside") {
            let (mut at, mut left) = (slice.ptr_guard().as_ptr().addr(), slice.len());
            while left > 0 {
                let bytes = (PAGE - at % PAGE).min(left);
                assert_eq!(
                    expected.next(),
                    Some((at, bytes)),
                    "slices of {len} bytes from {offset}"
                );
                (at, left) = (at + bytes, left - bytes);
            }
        }
        assert_eq!(expected.next(), None, "slices of {len} bytes from {offset} end early");

        buffer.iovecs(offset, len, &mut iovecs).expect("inside");
        assert_eq!(iovecs[0].iov_len, 7);
        let mut expected = pieces.iter().copied().peekable();
        for iovec in &iovecs[1..] {
            let (start, mut bytes) = expected.next().expect("an iovec too many");
            while let Some((_, more)) = expected.next_if(|(next, _)| *next == start + bytes) {
                bytes += more;
            }
            assert_eq!((iovec.iov_base.addr(), iovec.iov_len), (start, bytes));
        }
        assert_eq!(expected.next(), None, "iovecs end early");
    }
    (memory.iovecs, memory.pieces) = (iovecs, pieces);
}

/// Writes and reads back. Each byte is increased by one, so that a skipped byte is detected.
fn check_copy(memory: &mut Memory, buffer: &GuestBuffer, list: &List, offset: usize, len: usize) {
    let mut bytes = std::mem::take(&mut memory.bytes);
    let mut expected = std::mem::take(&mut memory.expected);
    let mut pieces = std::mem::take(&mut memory.pieces);
    bytes.clear();
    expected.clear();
    if offset + len > list.len {
        bytes.resize(len, 0xA5);
        assert!(buffer.read(offset, &mut bytes).is_err() && buffer.write(offset, &bytes).is_err());
        assert!(bytes.iter().all(|byte| *byte == 0xA5));
    } else {
        list.pieces(memory, offset, len, &mut pieces);
        for &(host, bytes) in &pieces {
            expected.extend(memory.shadow(host, bytes).iter().map(|byte| byte.wrapping_add(1)));
        }
        buffer.write(offset, &expected).expect("inside");
        let mut rest = &expected[..];
        for &(host, bytes) in &pieces {
            let (now, later) = rest.split_at(bytes);
            memory.shadow(host, bytes).copy_from_slice(now);
            rest = later;
        }
        bytes.resize(len, 0);
        buffer.read(offset, &mut bytes).expect("inside");
        assert_eq!(bytes, expected, "what was written to {len} bytes at {offset} is read again");
        check_pages(memory, &pieces);
    }
    (memory.bytes, memory.expected, memory.pieces) = (bytes, expected, pieces);
}

/// Checks that the accessed pages have exactly the model's bytes, so that no other byte was
/// written.
fn check_pages(memory: &mut Memory, pieces: &[(usize, usize)]) {
    for &(host, _) in pieces {
        let page = host & !(PAGE - 1);
        // SAFETY: `page` is a whole page of a region that `memory.ram` keeps mapped, and no other
        // code uses it now.
        let real = unsafe {
            std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(page), PAGE)
        };
        assert!(
            real == memory.shadow(page, PAGE),
            "page {page:#x} of the host has other bytes than were written"
        );
    }
}
