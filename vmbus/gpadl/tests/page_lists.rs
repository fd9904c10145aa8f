//! Page lists against a naive byte-by-byte model: the host reads and writes exactly the bytes that
//! the guest describes.

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, VolatileSlice};
use vmbus_gpadl::{BufferError, GuestBuffer, GuestRam, RangeAssembler, RangeError};
use vmbus_protocol::limits::{MAX_BUFFER_PAGES, MAX_GPADL_PAGES, MAX_GPADL_RANGES};

const PAGE: u64 = 4096;
/// Two regions with a hole between them: 64 pages at 0, 64 pages at 1 MiB.
const LOW_PAGES: u64 = 64;
const HIGH_FIRST: u64 = 0x100;

fn ram() -> GuestRam {
    let size = usize::try_from(LOW_PAGES * PAGE).unwrap();
    let map = [(GuestAddress(0), size), (GuestAddress(HIGH_FIRST * PAGE), size)];
    let memory = GuestMemoryMmap::from_ranges(&map).unwrap();
    for (first, pages) in [(0, LOW_PAGES), (HIGH_FIRST, LOW_PAGES)] {
        for pfn in first..first + pages {
            let bytes: Vec<u8> =
                (0..PAGE).map(|byte| (pfn * 31 + byte * 7 + byte / 251) as u8).collect();
            memory.write_slice(&bytes, GuestAddress(pfn * PAGE)).unwrap();
        }
    }
    GuestRam::new(memory).unwrap()
}

#[derive(Clone, Debug)]
struct Range {
    offset: u32,
    count: u32,
    pages: Vec<u64>,
}

impl Range {
    fn words(&self) -> Vec<u64> {
        let mut words = vec![u64::from(self.count) | u64::from(self.offset) << 32];
        words.extend(&self.pages);
        words
    }

    /// Returns the guest address of each byte, computed one by one.
    fn addresses(&self) -> Vec<u64> {
        (0..u64::from(self.count))
            .map(|byte| {
                let position = u64::from(self.offset) + byte;
                self.pages[usize::try_from(position / PAGE).unwrap()] * PAGE + position % PAGE
            })
            .collect()
    }
}

fn bytes_of(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn assemble(
    ram: &GuestRam,
    ranges: u32,
    words: &[u64],
    pieces: &[usize],
) -> Result<GuestBuffer, RangeError> {
    let bytes = bytes_of(words);
    let mut assembler = RangeAssembler::begin(GuestBuffer::new(ram.clone()), ranges, bytes.len())?;
    let mut rest = bytes.as_slice();
    for piece in pieces.iter().copied().chain(std::iter::repeat(28)) {
        let (now, later) = rest.split_at((piece * 8).min(rest.len()));
        if assembler.push(now)? {
            return Ok(assembler.finish().unwrap());
        }
        assert!(
            !later.is_empty(),
            "a list that is neither complete nor refused at its declared end"
        );
        rest = later;
    }
    unreachable!()
}

fn page() -> impl Strategy<Value = u64> {
    prop_oneof![0..LOW_PAGES, HIGH_FIRST..HIGH_FIRST + LOW_PAGES]
}

fn pages() -> impl Strategy<Value = Vec<u64>> {
    prop_oneof![
        prop::collection::vec(page(), 1..12),
        // Contiguous pages, two halves, and one page repeated.
        (0..LOW_PAGES - 12, 1..12_u64).prop_map(|(first, count)| (first..first + count).collect()),
        (0..LOW_PAGES - 12, 1..6_u64).prop_map(|(first, count)| (0..count)
            .flat_map(|i| [first + i / 2 * 2, first + i / 2 * 2 + 1])
            .collect()),
        (page(), 1..5_usize).prop_map(|(page, count)| vec![page; count]),
    ]
}

fn range() -> impl Strategy<Value = Range> {
    (pages(), 0..4096_u32, 0..4096_u32).prop_map(|(pages, offset, short)| {
        let room = u32::try_from(pages.len()).unwrap() * 4096;
        let offset = offset.min(room - 1) % 4096;
        // The range must need the last page, or the list would be longer than the range.
        let last_page = room - 4096;
        let end = (room - short).max(last_page.max(offset) + 1);
        Range { offset, count: end - offset, pages }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn test_buffer_of_random_ranges_reads_and_writes_what_the_model_says(
        ranges in prop::collection::vec(range(), 1..5),
        pieces in prop::collection::vec(1..30_usize, 0..20),
        cut in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let ram = ram();
        let words: Vec<u64> = ranges.iter().flat_map(Range::words).collect();
        let buffer = assemble(&ram, u32::try_from(ranges.len()).unwrap(), &words, &pieces).unwrap();
        let addresses: Vec<u64> = ranges.iter().flat_map(Range::addresses).collect();
        prop_assert_eq!(buffer.len(), addresses.len());
        let listed: Vec<u64> = ranges.iter().flat_map(|range| range.pages.clone()).collect();
        prop_assert_eq!(buffer.pages(), listed.len());
        prop_assert_eq!(buffer.guest_pages().collect::<Vec<_>>(), listed);

        let (a, b) = (cut.0.index(addresses.len() + 1), cut.1.index(addresses.len() + 1));
        let (from, to) = (a.min(b), a.max(b));
        let mut read = vec![0; to - from];
        buffer.read(from, &mut read).unwrap();
        let byte = |&at: &u64| ram.memory().read_obj::<u8>(GuestAddress(at)).unwrap();
        let expected: Vec<u8> = addresses[from..to].iter().map(byte).collect();
        prop_assert_eq!(&read, &expected);

        let sliced: usize = buffer.slices(from, to - from).unwrap().map(|slice| slice.len()).sum();
        prop_assert_eq!(sliced, to - from);
        let few = (to - from).min(64);
        let address = |slice: VolatileSlice<'_>| (slice.ptr_guard().as_ptr(), slice.len());
        let all: Vec<_> = buffer.slices(from, few).unwrap().map(address).collect();
        let only = if all.len() == 1 { all.first().copied() } else { None };
        prop_assert_eq!(buffer.piece(from, few).map(address), only);
        prop_assert_eq!(buffer.first_piece(from, few).map(address), all.first().copied());
        prop_assert!(buffer.piece(from, buffer.len() - from + 1).is_none());
        prop_assert!(buffer.piece(from, usize::MAX).is_none());
        let mut iovecs = Vec::new();
        buffer.iovecs(from, to - from, &mut iovecs).unwrap();
        prop_assert_eq!(iovecs.iter().map(|iovec| iovec.iov_len).sum::<usize>(), to - from);

        // The last write of a byte wins if pages repeat, in both.
        let fresh: Vec<u8> = (0..read.len()).map(|i| (i * 13 + 5) as u8).collect();
        let mut model = std::collections::BTreeMap::new();
        for (at, value) in addresses[from..to].iter().zip(&fresh) {
            model.insert(*at, *value);
        }
        buffer.write(from, &fresh).unwrap();
        for (at, value) in model {
            prop_assert_eq!(ram.memory().read_obj::<u8>(GuestAddress(at)).unwrap(), value);
        }
    }

    #[test]
    fn test_assembler_fed_anything_never_panics_and_never_leaves_ram(
        ranges in 0..6_u32,
        words in prop::collection::vec(
            prop_oneof![any::<u64>(), page(), 1..0x10_0000_u64, Just(4096), Just(u64::MAX)],
            0..80,
        ),
        pieces in prop::collection::vec(0..30_usize, 1..20),
    ) {
        let ram = ram();
        let bytes = bytes_of(&words);
        let begun = RangeAssembler::begin(GuestBuffer::new(ram), ranges, bytes.len());
        let Ok(mut assembler) = begun else { return Ok(()) };
        let mut rest = bytes.as_slice();
        for piece in pieces {
            let (now, later) = rest.split_at((piece * 8).min(rest.len()));
            rest = later;
            match assembler.push(now) {
                Ok(true) => {
                    let buffer = assembler.finish().unwrap();
                    let mut all = vec![0; buffer.len()];
                    buffer.read(0, &mut all).unwrap();
                    let high = HIGH_FIRST..HIGH_FIRST + LOW_PAGES;
                    let in_ram = |pfn| pfn < LOW_PAGES || high.contains(&pfn);
                    prop_assert!(buffer.guest_pages().all(in_ram));
                    break;
                }
                Ok(false) => {}
                Err(_) => break,
            }
        }
    }
}

#[test]
fn test_buffer_of_contiguous_pages_is_one_run() {
    let buffer = assemble(
        &ram(),
        1,
        &Range { offset: 0, count: 16 * 4096, pages: (4..20).collect() }.words(),
        &[26],
    )
    .unwrap();
    assert_eq!((buffer.pages(), buffer.runs(), buffer.ranges()), (16, 1, 1));
    assert!(buffer.is_whole_pages());
}

#[test]
fn test_buffer_across_regions_breaks_the_run() {
    let pages = vec![LOW_PAGES - 1, HIGH_FIRST, HIGH_FIRST + 1, 0];
    let buffer =
        assemble(&ram(), 1, &Range { offset: 0, count: 4 * 4096, pages }.words(), &[]).unwrap();
    assert_eq!(buffer.runs(), 3);
}

#[test]
fn test_assembler_with_bad_ranges_names_each_fault() {
    let ram = ram();
    let word = |count: u32, offset: u32| u64::from(count) | u64::from(offset) << 32;
    let cases: [(u32, Vec<u64>, RangeError); 9] = [
        (0, vec![word(4096, 0), 1], RangeError::NoRanges),
        (2, vec![word(4096, 0)], RangeError::Size { bytes: 8, ranges: 2 }),
        (1, vec![word(0, 0), 1], RangeError::Empty),
        (1, vec![word(4096, 0x1000), 1], RangeError::Offset(0x1000)),
        (1, vec![word(u32::MAX, 1), 1], RangeError::Overflow { offset: 1, count: u32::MAX }),
        (1, vec![word(4097, 0), 1], RangeError::ShortList { needed: 2, present: 1 }),
        (1, vec![word(4096, 0), LOW_PAGES], RangeError::NotRam(LOW_PAGES)),
        (1, vec![word(4096, 0), u64::MAX], RangeError::NotRam(u64::MAX)),
        (2, vec![word(4096, 0), 1], RangeError::ShortList { needed: 1, present: 0 }),
    ];
    for (ranges, words, expected) in cases {
        assert_eq!(
            assemble(&ram, ranges, &words, &[]).err(),
            Some(expected),
            "{ranges} ranges, {words:x?}"
        );
    }
    let begun = RangeAssembler::begin(GuestBuffer::new(ram), 1, 12);
    assert_eq!(begun.err(), Some(RangeError::Size { bytes: 12, ranges: 1 }));
}

/// Most bytes of range data that a GPADL header can declare.
const MOST_BYTES: usize = 65_528;

#[test]
fn test_range_of_the_most_pages_that_a_gpadl_can_list_is_taken_and_one_more_is_short() {
    let ram = ram();
    let pages: Vec<u64> = (0..MAX_GPADL_PAGES as u64).map(|page| page * 7 % LOW_PAGES).collect();
    let mut range = Range { offset: 0, count: MAX_GPADL_PAGES as u32 * 4096, pages };
    let words = range.words();
    assert_eq!(words.len() * 8, MOST_BYTES);
    assert_eq!(assemble(&ram, 1, &words, &[26]).unwrap().pages(), MAX_GPADL_PAGES);
    range.count += 1;
    let error = RangeError::ShortList { needed: MAX_GPADL_PAGES + 1, present: MAX_GPADL_PAGES };
    assert_eq!(assemble(&ram, 1, &range.words(), &[26]).err(), Some(error));
}

#[test]
fn test_list_of_the_most_ranges_that_a_gpadl_can_have_is_taken_and_one_more_is_short() {
    let ram = ram();
    let one = Range { offset: 5, count: 9, pages: vec![3] };
    let mut words = one.words().repeat(MAX_GPADL_RANGES);
    let buffer = assemble(&ram, MAX_GPADL_RANGES as u32, &words, &[26]).unwrap();
    assert_eq!((buffer.ranges(), buffer.len()), (MAX_GPADL_RANGES, 9 * MAX_GPADL_RANGES));
    assert!(buffer.heap_bytes() <= 24 * buffer.pages(), "{} bytes", buffer.heap_bytes());
    // Only the first word of another range still fits.
    words.push(one.words()[0]);
    assert_eq!(words.len() * 8, MOST_BYTES);
    let refused = assemble(&ram, MAX_GPADL_RANGES as u32 + 1, &words, &[26]).err();
    assert_eq!(refused, Some(RangeError::ShortList { needed: 1, present: 0 }));
}

#[test]
fn test_buffer_of_the_most_pages_is_taken_and_one_more_is_refused() {
    let ram = ram();
    let range = |pages: usize| Range {
        offset: 0,
        count: pages as u32 * 4096,
        pages: (0..pages as u64).map(|page| page * 7 % LOW_PAGES).collect(),
    };
    let most = assemble(&ram, 1, &range(MAX_BUFFER_PAGES).words(), &[]).unwrap();
    assert_eq!((most.pages(), most.len()), (MAX_BUFFER_PAGES, MAX_BUFFER_PAGES * 4096));
    let last = (MAX_BUFFER_PAGES - 1) * 4096;
    most.write(last, &[0xC3; 4096]).unwrap();
    assert_eq!(most.read_obj::<[u8; 4096]>(last), Ok([0xC3; 4096]));
    let refused = assemble(&ram, 1, &range(MAX_BUFFER_PAGES + 1).words(), &[]).err();
    assert_eq!(refused, Some(RangeError::TooManyPages));
    // The same holds for pages in two ranges.
    let mut words = range(MAX_BUFFER_PAGES).words();
    words.extend(Range { offset: 0, count: 1, pages: vec![1] }.words());
    assert_eq!(assemble(&ram, 2, &words, &[]).err(), Some(RangeError::TooManyPages));
}

/// A part of a list has no bytes: its runs have no position yet.
#[test]
fn test_buffer_whose_list_still_arrives_has_no_byte() {
    let bytes = bytes_of(&Range { offset: 0, count: 3 * 4096, pages: vec![1, 5, 9] }.words());
    let begin = || RangeAssembler::begin(GuestBuffer::new(ram()), 1, bytes.len()).unwrap();
    let mut assembler = begin();
    assert!(!assembler.push(&bytes[..24]).unwrap());
    let part = assembler.buffer();
    assert_eq!((part.len(), part.listed_bytes()), (0, 3 * 4096));
    assert!(part.slices(0, 1).is_err());
    assert!(assembler.push(&bytes[24..]).unwrap());
    let buffer = assembler.finish().unwrap();
    assert_eq!((buffer.len(), buffer.listed_bytes()), (3 * 4096, 3 * 4096));

    let mut assembler = begin();
    assert!(!assembler.push(&bytes[..24]).unwrap());
    assert!(assembler.finish().is_none(), "a part of a list is not given out");
}

/// A list that continued after a bad page would count pages that no range has.
#[test]
fn test_assembler_that_refused_a_list_refuses_the_rest_and_gives_no_buffer_out() {
    let bytes =
        bytes_of(&Range { offset: 0, count: 3 * 4096, pages: vec![1, u64::MAX, 9] }.words());
    let good = bytes_of(&[2, 3, 4]);
    let mut buffer =
        assemble(&ram(), 1, &Range { offset: 0, count: 9, pages: vec![3] }.words(), &[]).unwrap();
    let mut assembler = RangeAssembler::begin(&mut buffer, 1, bytes.len() + good.len()).unwrap();
    assert_eq!(assembler.push(&bytes), Err(RangeError::NotRam(u64::MAX)));
    for _ in 0..3 {
        assembler.push(&good).unwrap_err();
    }
    assert!(assembler.finish().is_none());
    assert!(buffer.is_empty() && buffer.slices(0, 1).is_err());
}

#[test]
fn test_assembler_with_words_past_the_ranges_ignores_them() {
    let mut words = Range { offset: 0x200, count: 0x100, pages: vec![3] }.words();
    words.extend([u64::MAX; 5]);
    let buffer = assemble(&ram(), 1, &words, &[]).unwrap();
    assert_eq!((buffer.len(), buffer.pages()), (0x100, 1));
}

#[test]
fn test_buffer_access_past_the_end_is_refused_and_touches_nothing() {
    let buffer =
        assemble(&ram(), 1, &Range { offset: 1, count: 100, pages: vec![3] }.words(), &[]).unwrap();
    let error = Some(BufferError::OutOfBounds { offset: 1, len: 100, size: 100 });
    assert_eq!(buffer.slices(1, 100).err(), error);
    assert_eq!(buffer.read(1, &mut [0; 100]).err(), error);
    assert_eq!(buffer.write(1, &[0; 100]).err(), error);
    assert!(buffer.slices(usize::MAX, 2).is_err());
    assert!(buffer.slices(100, 0).unwrap().next().is_none());
}

#[test]
fn test_iovecs_of_touching_ranges_merge_and_leave_earlier_ones_alone() {
    let words: Vec<u64> = [
        Range { offset: 0, count: 4096, pages: vec![3] },
        Range { offset: 0, count: 4096, pages: vec![4] },
    ]
    .iter()
    .flat_map(Range::words)
    .collect();
    let buffer = assemble(&ram(), 2, &words, &[]).unwrap();
    let mut iovecs = vec![libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 7 }];
    buffer.iovecs(0, 8192, &mut iovecs).unwrap();
    assert_eq!(iovecs.iter().map(|iovec| iovec.iov_len).collect::<Vec<_>>(), [7, 8192]);
}

#[test]
fn test_buffer_cleared_and_refilled_allocates_nothing() {
    let ram = ram();
    let mut buffer = GuestBuffer::new(ram);
    let bytes = bytes_of(
        &Range { offset: 0, count: 20 * 4096, pages: (0..20).map(|i| i * 2).collect() }.words(),
    );
    let mut fill = || RangeAssembler::assemble(&mut buffer, 1, &bytes).unwrap().heap_bytes();
    let first = fill();
    assert_eq!(fill(), first);
}

/// The worst list: only one page more than ranges, so that hardly any pages merge and an index
/// would still be needed.
#[test]
fn test_list_of_one_page_ranges_takes_at_most_24_bytes_a_page_and_is_still_found() {
    struct Nobody;
    impl vmbus_gpadl::ReleaseSink for Nobody {
        fn gpadl_released(&self, _: vmbus_gpadl::GpadlKey) {}
    }
    let ram = ram();
    for alone in [14_u64, 20, 60] {
        let mut ranges: Vec<Range> =
            (0..alone).map(|page| Range { offset: 0, count: 4096, pages: vec![page] }).collect();
        ranges.push(Range { offset: 0, count: 8192, pages: vec![HIGH_FIRST + 5, HIGH_FIRST + 6] });
        let words: Vec<u64> = ranges.iter().flat_map(Range::words).collect();
        let buffer =
            assemble(&ram, u32::try_from(ranges.len()).unwrap(), &words, &[28, 28]).unwrap();
        let key = vmbus_gpadl::GpadlKey { relid: 1, id: 1, serial: 1 };
        let gpadl = vmbus_gpadl::Gpadl::new(key, buffer, std::sync::Arc::new(Nobody));
        let buffer = gpadl.buffer();
        assert!(buffer.heap_bytes() <= 24 * buffer.pages(), "{} bytes", buffer.heap_bytes());
        let listed: Vec<u64> = buffer.guest_pages().collect();
        for (index, page) in listed.into_iter().enumerate() {
            ram.memory().write_obj(page, GuestAddress(page * PAGE)).unwrap();
            let mut bytes = [0; 8];
            buffer.read(index * 4096, &mut bytes).unwrap();
            assert_eq!(u64::from_le_bytes(bytes), page);
        }
    }
}

#[test]
fn test_pages_of_one_buffer_at_the_limit_and_past_it() {
    let ram = ram();
    let list = |pages: usize| {
        let (full, rest) = (pages / 8190, pages % 8190);
        let lengths = std::iter::repeat_n(8190, full).chain((rest != 0).then_some(rest));
        let ranges: Vec<Range> = lengths
            .map(|pages| Range {
                offset: 0,
                count: u32::try_from(pages * 4096).unwrap(),
                pages: vec![7; pages],
            })
            .collect();
        let words: Vec<u64> = ranges.iter().flat_map(Range::words).collect();
        assemble(&ram, u32::try_from(ranges.len()).unwrap(), &words, &[])
    };
    let full = list(MAX_BUFFER_PAGES).unwrap();
    assert_eq!((full.pages(), full.len()), (MAX_BUFFER_PAGES, MAX_BUFFER_PAGES * 4096));
    let mut last = [0; 8];
    full.read(full.len() - 8, &mut last).unwrap();
    assert_eq!(list(MAX_BUFFER_PAGES + 1).unwrap_err(), RangeError::TooManyPages);
}

/// Design 6: a segment count of 8 bits. No count of pieces comes near an overflow.
#[test]
fn test_iovecs_of_more_pieces_than_8_bits_count_are_all_there() {
    let ram = ram();
    for pages in [254, 255, 256, 257, 511, 513, 2000_usize] {
        // Every second page, so that no two touch.
        let pages: Vec<u64> = (0..pages as u64).map(|at| at * 2 % LOW_PAGES).collect();
        let count = u32::try_from(pages.len() * 4096).unwrap();
        let range = Range { offset: 0, count, pages: pages.clone() };
        let buffer = assemble(&ram, 1, &range.words(), &[]).unwrap();
        let mut iovecs = Vec::new();
        buffer.iovecs(0, buffer.len(), &mut iovecs).unwrap();
        assert_eq!(iovecs.len(), pages.len());
        assert_eq!(iovecs.iter().map(|iovec| iovec.iov_len).sum::<usize>(), buffer.len());
        let mut bytes = vec![0; buffer.len()];
        buffer.read(0, &mut bytes).unwrap();
        assert!(bytes.chunks(4096).zip(&pages).all(|(page, pfn)| page[0] == (pfn * 31) as u8));
    }
}
