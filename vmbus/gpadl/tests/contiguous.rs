//! Tests of contiguous parts of a buffer (their bytes, lifetime and errors), and of typed values at
//! any offset.

use std::fs::File;
use std::os::fd::FromRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap,
    MmapRegion,
};
use vmbus_gpadl::{
    BufferError, ContiguousError, ContiguousMappingError, Gpadl, GpadlKey, GuestBuffer, GuestRam,
    RangeAssembler, ReleaseSink, Teardown,
};
use vmbus_protocol::limits::MAX_CONTIGUOUS_RUNS;
use zerocopy::little_endian::{U32, U64};

const PAGE: usize = 4096;
/// Two regions of one file with a hole between them in the guest.
const LOW_PAGES: u64 = 600;
const HIGH_FIRST: u64 = 0x1000;
const HIGH_PAGES: u64 = 8;

fn memfd(pages: u64) -> File {
    // SAFETY: the name is a C string; the call accesses no other memory.
    let fd = unsafe { libc::memfd_create(c"contiguous-test".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: a fresh descriptor without another owner.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(pages * PAGE as u64).unwrap();
    file
}

fn ram() -> GuestRam {
    let file = Arc::new(memfd(LOW_PAGES + HIGH_PAGES));
    let low = FileOffset::from_arc(Arc::clone(&file), 0);
    let high = FileOffset::from_arc(file, LOW_PAGES * PAGE as u64);
    let regions = [
        (GuestAddress(0), LOW_PAGES as usize * PAGE, Some(low)),
        (GuestAddress(HIGH_FIRST * PAGE as u64), HIGH_PAGES as usize * PAGE, Some(high)),
    ];
    GuestRam::new(GuestMemoryMmap::from_ranges_with_files(regions).unwrap()).unwrap()
}

/// Returns a buffer of ranges {byte count, byte offset, pages}.
fn buffer(ram: &GuestRam, ranges: &[(u32, u32, &[u64])]) -> GuestBuffer {
    let mut bytes = Vec::new();
    for (count, offset, pages) in ranges {
        bytes.extend(count.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes.extend(pages.iter().flat_map(|page| page.to_le_bytes()));
    }
    RangeAssembler::assemble(GuestBuffer::new(ram.clone()), ranges.len() as u32, &bytes).unwrap()
}

/// Fills the buffer with bytes that differ between neighbours and between pages. Returns them.
fn fill(buffer: &GuestBuffer) -> Vec<u8> {
    let bytes: Vec<u8> = (0..buffer.len()).map(|n| (n * 7 + n / PAGE * 31 + 1) as u8).collect();
    buffer.write(0, &bytes).unwrap();
    bytes
}

/// Checks that `len` contiguous bytes from `offset` are the buffer's bytes, for reads and writes.
fn check(buffer: &GuestBuffer, offset: usize, len: usize, remapped: bool) {
    let whole = buffer.contiguous(offset, len).unwrap();
    assert_eq!((whole.slice().len(), whole.is_remapped()), (len, remapped), "{offset} {len}");
    let mut seen = vec![0; len];
    whole.slice().copy_to(&mut seen[..]);
    let mut expected = vec![0; len];
    buffer.read(offset, &mut expected).unwrap();
    assert!(seen == expected, "{offset} {len}");
    for at in [0, len / 3, len - 1] {
        let value = seen[at].wrapping_add(0x55);
        whole.slice().write_obj(value, at).unwrap();
        assert_eq!(buffer.read_obj::<u8>(offset + at), Ok(value));
        buffer.write_obj(offset + at, &value.wrapping_add(1)).unwrap();
        assert_eq!(whole.slice().read_obj::<u8>(at).unwrap(), value.wrapping_add(1));
    }
}

#[test]
fn test_contiguous_part_of_one_run_is_guest_memory_itself() {
    let ram = ram();
    let buffer = buffer(&ram, &[(3 * 4096 - 700, 600, &[5, 6, 7])]);
    fill(&buffer);
    check(&buffer, 0, buffer.len(), false);
    check(&buffer, 5000, 1234, false);
    let whole = buffer.contiguous(1, 9000).unwrap();
    let at = ram.memory().get_host_address(GuestAddress(5 * 4096 + 601)).unwrap();
    assert_eq!(whole.slice().ptr_guard().as_ptr(), at.cast_const());
}

#[test]
fn test_contiguous_scattered_pages_with_odd_ends_are_remapped() {
    let buffer = buffer(&ram(), &[(6 * 4096 - 123 - 77, 123, &[9, 3, 4, HIGH_FIRST + 2, 0, 100])]);
    fill(&buffer);
    let len = buffer.len();
    check(&buffer, 0, len, true);
    for (offset, part) in [(0, 4096), (1, len - 1), (0, len - 1), (3973, 5), (3972, 2), (20_000, 8)]
    {
        let one_page = (offset + 123) / PAGE == (offset + 123 + part - 1) / PAGE;
        check(&buffer, offset, part, !one_page);
    }
    // Pages 3 and 4 are neighbours.
    check(&buffer, 4096 - 123, 8192, false);
}

#[test]
fn test_contiguous_over_ranges_of_whole_pages_is_remapped() {
    let ranges: [(u32, u32, &[u64]); 3] =
        [(4096 - 40, 40, &[9]), (8192, 0, &[3, HIGH_FIRST]), (100, 0, &[HIGH_FIRST + 1])];
    let buffer = buffer(&ram(), &ranges);
    fill(&buffer);
    check(&buffer, 0, buffer.len(), true);
    check(&buffer, 4056, 8192, true);
    // The last two ranges touch in the guest and in the host.
    check(&buffer, 4056 + 4096 + 10, 4096, false);
}

#[test]
fn test_contiguous_listing_a_page_twice_shows_it_twice() {
    let buffer = buffer(&ram(), &[(3 * 4096, 0, &[7, 2, 7])]);
    let whole = buffer.contiguous(0, 3 * 4096).unwrap();
    whole.slice().write_obj(0x1122_3344_u32, 2 * 4096 + 5).unwrap();
    assert_eq!(whole.slice().read_obj::<u32>(5).unwrap(), 0x1122_3344);
    assert_eq!(buffer.read_obj::<u32>(5), Ok(0x1122_3344));
}

#[test]
fn test_contiguous_across_regions_that_follow_in_the_file_is_one_run() {
    let pages = [LOW_PAGES - 1, HIGH_FIRST];
    let buffer = buffer(&ram(), &[(8192, 0, &pages)]);
    assert_eq!(buffer.runs(), 2);
    fill(&buffer);
    check(&buffer, 4000, 200, true);
}

#[test]
fn test_contiguous_where_ranges_meet_inside_a_page_is_refused() {
    let ram = ram();
    let short_end = buffer(&ram, &[(4095, 0, &[1]), (4096, 0, &[5])]);
    let late_start = buffer(&ram, &[(4096, 0, &[1]), (4095, 1, &[5])]);
    for buffer in [short_end, late_start] {
        let error = buffer.contiguous(0, buffer.len()).unwrap_err();
        assert!(
            matches!(error, ContiguousError::Mapping(ContiguousMappingError::InsidePage)),
            "{error}"
        );
        check(&buffer, 0, 4095, false);
    }
    // The same ranges are accepted if they follow each other there.
    let within = buffer(&ram, &[(100, 7, &[1]), (4096 - 107, 107, &[1]), (4096, 0, &[9])]);
    fill(&within);
    check(&within, 0, within.len(), true);
    check(&within, 50, 100, false);
}

#[test]
fn test_contiguous_of_the_most_runs_is_mapped_and_one_more_is_refused() {
    // Every second page is listed, so each is a run of its own.
    let pages: Vec<u64> = (0..=MAX_CONTIGUOUS_RUNS as u64).map(|page| page * 2).collect();
    let buffer = buffer(&ram(), &[(pages.len() as u32 * 4096, 0, &pages)]);
    fill(&buffer);
    check(&buffer, 0, MAX_CONTIGUOUS_RUNS * PAGE, true);
    check(&buffer, 4095, (MAX_CONTIGUOUS_RUNS - 1) * PAGE, true);
    for (offset, len) in
        [(0, MAX_CONTIGUOUS_RUNS * PAGE + 1), (4095, (MAX_CONTIGUOUS_RUNS - 1) * PAGE + 2)]
    {
        let error = buffer.contiguous(offset, len).unwrap_err();
        let ContiguousError::Mapping(ContiguousMappingError::TooManyRuns { limit }) = error else {
            panic!("{error}");
        };
        assert_eq!(limit, MAX_CONTIGUOUS_RUNS);
    }
}

#[test]
fn test_contiguous_in_memory_that_cannot_be_mapped_again_is_refused_unless_it_is_one_run() {
    let anonymous = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 8 * PAGE)]).unwrap();
    // Written pages of a private mapping are not those of its file.
    let private: MmapRegion = MmapRegionBuilder::new(8 * PAGE)
        .with_file_offset(FileOffset::new(memfd(8), 0))
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_NORESERVE)
        .build()
        .unwrap();
    let private = GuestRegionMmap::new(private, GuestAddress(0)).unwrap();
    let private = GuestMemoryMmap::from_regions(vec![private]).unwrap();
    for memory in [anonymous, private] {
        let buffer = buffer(&GuestRam::new(memory).unwrap(), &[(3 * 4096, 0, &[1, 2, 5])]);
        let error = buffer.contiguous(0, 3 * PAGE).unwrap_err();
        assert!(
            matches!(error, ContiguousError::Mapping(ContiguousMappingError::NotShared)),
            "{error}"
        );
        check(&buffer, 10, 2 * PAGE - 10, false);
    }
}

#[test]
fn test_contiguous_beyond_the_buffer_is_refused_and_of_nothing_is_empty() {
    let buffer = buffer(&ram(), &[(5000, 0, &[1, 5])]);
    for (offset, len) in [(0, 5001), (5000, 1), (usize::MAX, 2)] {
        let error = buffer.contiguous(offset, len).unwrap_err();
        let bounds = BufferError::OutOfBounds { offset, len, size: 5000 };
        assert!(matches!(error, ContiguousError::Bounds(error) if error == bounds), "{error}");
    }
    let nothing = buffer.contiguous(5000, 0).unwrap();
    assert!(nothing.slice().is_empty());
}

#[derive(Default)]
struct Released(AtomicU32);

impl ReleaseSink for Released {
    fn gpadl_released(&self, _: GpadlKey) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn test_contiguous_view_holds_a_teardown_up_until_it_is_dropped() {
    let buffer = buffer(&ram(), &[(3 * 4096, 0, &[1, 5, 6])]);
    let released = Arc::new(Released::default());
    let gpadl =
        Gpadl::new(GpadlKey { relid: 1, id: 1, serial: 1 }, buffer, Arc::clone(&released) as _);
    let view = gpadl.map().unwrap();
    let (remapped, direct) =
        (view.contiguous(0, 8192).unwrap(), view.contiguous(4096, 8192).unwrap());
    assert!(remapped.is_remapped() && !direct.is_remapped());
    drop(view);
    assert_eq!(gpadl.views(), 2);
    assert_eq!(gpadl.teardown(), Teardown::Waits);
    drop(direct);
    // Another thread may hold it.
    std::thread::spawn(move || remapped.slice().write_obj(1_u8, 0).unwrap()).join().unwrap();
    assert_eq!((gpadl.views(), released.0.load(Ordering::Relaxed)), (0, 1));
}

#[test]
fn test_values_at_every_offset_are_read_and_written_across_runs_and_ranges() {
    let ram = ram();
    let ranges: [(u32, u32, &[u64]); 3] =
        [(4096 + 5, 4091, &[9, 3]), (1, 17, &[2]), (7000, 11, &[4, 1])];
    let buffer = buffer(&ram, &ranges);
    let mut bytes = fill(&buffer);
    for offset in 0..=bytes.len() - 8 {
        let expected = u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap());
        assert_eq!(buffer.read_obj::<U64>(offset), Ok(U64::new(expected)));
        buffer.write_obj(offset, &U32::new(offset as u32 ^ 0xA5A5_A5A5)).unwrap();
        bytes[offset..offset + 4].copy_from_slice(&(offset as u32 ^ 0xA5A5_A5A5).to_le_bytes());
    }
    let mut seen = vec![0; bytes.len()];
    buffer.read(0, &mut seen).unwrap();
    assert_eq!(seen, bytes);
    let (offset, size) = (bytes.len() - 7, bytes.len());
    let error = BufferError::OutOfBounds { offset, len: 8, size };
    assert_eq!(buffer.read_obj::<U64>(offset), Err(error));
    assert_eq!(buffer.write_obj(offset, &U64::ZERO), Err(error));
    buffer.read(0, &mut seen).unwrap();
    assert_eq!(seen, bytes, "a refused write touches nothing");
}
