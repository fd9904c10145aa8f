//! Registered guest memory: requests move the right bytes for every part of the memory, and the
//! memory is unpinned at the end.

use std::sync::atomic::AtomicU64;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmbus_gpadl::GuestRam;

use super::super::*;
use super::image;
use super::in_guest::InGuest;
use crate::conformance::{
    CAPACITY, FaultPlan, check, check_faults, check_reopen, guest_buffer, guest_ram, pattern, run,
};
use crate::{IoBuffer, Operation, Request};

const PAGE: u64 = 4096;
const ENV: &str = "SYNTHVM_STORAGE_TEST_FIXED";

/// Registers `ram` in chunks of `pages` pages. `None`: this machine does not permit locked memory.
fn fixed(ram: &GuestRam, pages: u64) -> Option<Arc<FixedMemory>> {
    match FixedMemory::in_chunks(ram, (pages * PAGE) as usize) {
        Ok(fixed) => Some(fixed),
        Err(error @ (FixedError::NoUring(_) | FixedError::Limit { .. })) => {
            eprintln!("left out: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn open(path: &Path, cache: CacheMode, fixed: &Arc<FixedMemory>) -> RawFile {
    let options = RawOptions { cache, io: IoMode::Uring, ..RawOptions::default() };
    let raw = RawFile::open_with(path, &options).unwrap();
    raw.use_fixed(fixed).unwrap();
    raw
}

/// A maker of images whose requests use registered guest memory.
struct Guest {
    ram: GuestRam,
    cache: CacheMode,
    memory: Arc<FixedMemory>,
    /// Calls that used registered memory, for closed images.
    total: Arc<AtomicU64>,
}

impl Guest {
    const PAGES: u64 = 4096;

    fn new(cache: CacheMode, chunk: u64, shares: bool) -> Option<Self> {
        let ram = guest_ram((Self::PAGES * PAGE) as usize);
        let mut memory = fixed(&ram, chunk)?;
        Arc::get_mut(&mut memory).unwrap().share(shares);
        Some(Self { ram, cache, memory, total: Arc::default() })
    }

    fn open(&self, path: &Path, plan: Option<&FaultPlan>) -> Arc<dyn Backend> {
        let mut raw = open(path, self.cache, &self.memory);
        if let Some(plan) = plan {
            Arc::get_mut(&mut raw.image).unwrap().faults = Some(plan.clone());
        }
        Arc::new(InGuest::new(raw, &self.ram, Self::PAGES, &self.total))
    }

    fn calls(&self) -> u64 {
        self.total.load(std::sync::atomic::Ordering::Relaxed)
    }
}

fn conforms(cache: CacheMode, chunk: u64, shares: bool) {
    let Some(guest) = Guest::new(cache, chunk, shares) else { return };
    let files = std::cell::RefCell::new(Vec::new());
    check(|| {
        let file = image(CAPACITY);
        let backend = guest.open(file.as_path(), None);
        files.borrow_mut().push(file);
        backend
    });
    assert_ne!(guest.calls(), 0, "no request found its memory in place");
}

#[test]
fn test_fixed_images_keep_what_was_flushed_and_tell_every_fault() {
    let Some(guest) = Guest::new(CacheMode::Writeback, 7, true) else { return };
    let file = image(CAPACITY);
    check_reopen(|| guest.open(file.as_path(), None));
    let last = std::cell::Cell::new(None);
    check_faults(|plan| {
        let file = image(CAPACITY);
        let backend = guest.open(file.as_path(), Some(plan));
        last.set(Some(file));
        backend
    });
    assert_ne!(guest.calls(), 0, "no request found its memory in place");
}

#[test]
fn test_fixed_writeback_in_small_chunks_conforms() {
    conforms(CacheMode::Writeback, 5, true);
}

#[test]
fn test_fixed_direct_in_one_chunk_conforms() {
    conforms(CacheMode::None, 1 << 18, true);
}

#[test]
fn test_fixed_direct_on_a_kernel_whose_rings_cannot_share_conforms() {
    conforms(CacheMode::None, 64, false);
}

/// Returns two regions with a hole between them: pages 0 to 15, and 32 to 39.
fn two_regions() -> GuestRam {
    let ranges =
        [(GuestAddress(0), 16 * PAGE as usize), (GuestAddress(32 * PAGE), 8 * PAGE as usize)];
    GuestRam::new(GuestMemoryMmap::from_ranges(&ranges).unwrap()).unwrap()
}

/// Writes `len` bytes from byte `offset` of the first of `pages` on, and reads them back into the
/// same pages. Returns the number of calls that used registered memory.
fn there_and_back(raw: &RawFile, ram: &GuestRam, offset: u32, len: usize, pages: &[u64]) -> u64 {
    let before = raw.fixed_calls().unwrap();
    let mut queue = raw.queue().unwrap();
    let bytes = pattern(u64::from(offset) + pages[0], len);
    let mut buffer = guest_buffer(ram, offset, len as u32, pages);
    buffer.guest_mut().unwrap().write(0, &bytes).unwrap();
    buffer.select(0, len).unwrap();
    let request = |operation, buffer| Request::new(1, operation, 8192, len as u64, buffer);
    let written = run(&mut *queue, vec![request(Operation::Write { fua: true }, buffer)]).remove(0);
    assert_eq!(written.result, Ok(()));
    let mut buffer = written.request.buffer;
    // Neighbouring pages must stay unchanged.
    for region in [0..16, 32..40] {
        for page in region {
            ram.memory().write_slice(&[0xEE; PAGE as usize], GuestAddress(page * PAGE)).unwrap();
        }
    }
    buffer.select(0, len).unwrap();
    let read = run(&mut *queue, vec![request(Operation::Read, buffer)]).remove(0);
    assert_eq!(read.result, Ok(()));
    let mut seen = vec![0; len];
    read.request.buffer.guest().unwrap().read(0, &mut seen).unwrap();
    assert!(seen == bytes, "{len} bytes at {offset} of {pages:?}");
    let others = [0..16_u64, 32..40].into_iter().flatten().filter(|page| !pages.contains(page));
    for page in others {
        let mut bytes = [0; PAGE as usize];
        ram.memory().read_slice(&mut bytes, GuestAddress(page * PAGE)).unwrap();
        assert!(bytes == [0xEE; PAGE as usize], "page {page} is none of {pages:?}");
    }
    raw.fixed_calls().unwrap() - before
}

#[test]
fn test_fixed_first_and_last_bytes_of_regions_and_chunks_are_moved_and_what_straddles_goes_as_ever()
{
    let ram = two_regions();
    let Some(memory) = fixed(&ram, 4) else { return };
    let many = if memory.takes_many() { 2 } else { 0 };
    let file = image(1 << 20);
    for cache in [CacheMode::Writeback, CacheMode::None] {
        let raw = open(file.as_path(), cache, &memory);
        for (offset, len, pages, expected) in [
            (0, 512, &[0][..], 2),
            (3584, 512, &[15], 2),
            (0, 512, &[32], 2),
            (3584, 512, &[39], 2),
            (0, 4096, &[3], 2),
            // One whole chunk, and one block less than that.
            (0, 4 * 4096, &[4, 5, 6, 7], 2),
            (512, 4 * 4096 - 512, &[36, 37, 38, 39], 2),
            // One piece across the border of two chunks.
            (0, 2 * 4096, &[3, 4], 0),
            (3584, 1024, &[11, 12], 0),
            (0, 16 * 4096, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], 0),
            // Several pieces, in one chunk and in several.
            (0, 3 * 4096, &[7, 5, 4], many),
            (0, 2 * 4096, &[38, 36], many),
            (0, 2 * 4096, &[7, 9], 0),
            (0, 2 * 4096, &[39, 0], 0),
        ] {
            // Writes to the page cache are made by the image's threads.
            let expected = if cache == CacheMode::None { expected } else { expected / 2 };
            assert_eq!(
                there_and_back(&raw, &ram, offset, len, pages),
                expected,
                "{cache:?} {offset} {len} {pages:?}"
            );
        }
    }
}

#[test]
fn test_fixed_memory_of_others_and_no_memory_go_as_ever() {
    let ram = two_regions();
    let Some(memory) = fixed(&ram, 4) else { return };
    let file = image(1 << 20);
    let raw = open(file.as_path(), CacheMode::Writeback, &memory);
    let mut bytes = super::one(&raw, Operation::Write { fua: false }, 512, vec![7; 512]).unwrap();
    bytes.fill(0);
    assert_eq!(super::one(&raw, Operation::Read, 512, bytes), Ok(vec![7; 512]));
    assert_eq!(super::one(&raw, Operation::Read, 512, vec![]), Ok(vec![]));
    assert_eq!(super::one(&raw, Operation::Flush, 0, vec![]), Ok(vec![]));
    assert_eq!(raw.fixed_calls(), Some(0));
    // The memory of another guest, at other addresses.
    let other = two_regions();
    assert_eq!(there_and_back(&raw, &other, 0, 4096, &[3]), 0);
}

#[test]
fn test_fixed_request_that_fails_says_why() {
    let ram = two_regions();
    let Some(memory) = fixed(&ram, 4) else { return };
    let file = image(1 << 20);
    let raw = open(file.as_path(), CacheMode::Writeback, &memory);
    let read = |offset| {
        let mut buffer = guest_buffer(&ram, 0, 4096, &[1]);
        buffer.select(0, 4096).unwrap();
        let (operation, buffer) = (Operation::Read, buffer);
        run(&mut *raw.queue().unwrap(), vec![Request::new(0, operation, offset, 4096, buffer)])[0]
            .result
    };
    file.as_file().set_len(6144).unwrap();
    assert_eq!(
        (read(0), read(4096), read(1 << 20)),
        (Ok(()), Err(IoError::EndOfImage), Err(IoError::EndOfImage))
    );
}

#[test]
fn test_fixed_memory_is_refused_where_no_ring_moves_the_bytes() {
    let ram = two_regions();
    let Some(memory) = fixed(&ram, 4) else { return };
    let file = image(1 << 20);
    for io in [IoMode::Threads, IoMode::Sync] {
        let raw = RawFile::open_with(file.as_path(), &RawOptions { io, ..RawOptions::default() })
            .unwrap();
        assert_eq!((raw.use_fixed(&memory), raw.fixed_calls()), (Err(IoError::Unsupported), None));
    }
}

/// Returns the kilobytes of this process that the kernel has pinned.
fn pinned() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Limits the locked memory of this thread to `bytes`.
fn limit_locked_memory(bytes: u64) {
    const VERSION: u32 = 0x2008_0522;
    const IPC_LOCK: u32 = 14;
    let header = [VERSION, 0];
    let mut sets = [[0_u32; 3]; 2];
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the header and the sets have the layout of capget(2), and the limit is valid.
    let results = unsafe {
        let got = libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr());
        sets[0][0] &= !(1 << IPC_LOCK);
        sets[0][1] &= !(1 << IPC_LOCK);
        let set = libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr());
        [got, set, libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit).into()]
    };
    assert_eq!(results, [0, 0, 0]);
}

/// A process with limits and counts of its own, and no test of its own.
#[test]
fn test_fixed_helper_process() {
    const SIZE: u64 = 1 << 20;
    let Some(what) = std::env::var_os(ENV) else { return };
    let (ram, file) = (guest_ram(SIZE as usize), image(CAPACITY));
    let buffer = |ram: &GuestRam| {
        let mut buffer = guest_buffer(ram, 0, 4096, &[7]);
        buffer.select(0, 4096).unwrap();
        buffer
    };
    let read = |queue: &mut dyn Queue, buffer: IoBuffer| {
        let request = Request::new(0, Operation::Read, 0, 4096, buffer);
        assert_eq!(run(queue, vec![request])[0].result, Ok(()));
    };
    match what.to_str().unwrap() {
        "pinned" => {
            let Some(memory) = fixed(&ram, 16) else { std::process::exit(42) };
            let rings = if memory.is_shared() { 0 } else { 2 };
            assert_eq!(pinned(), SIZE >> 10);
            let raw = open(file.as_path(), CacheMode::Writeback, &memory);
            let mut queues = [raw.queue().unwrap(), raw.queue().unwrap()];
            assert_eq!(pinned(), (SIZE >> 10) * (1 + rings), "once for all");
            let buffer = buffer(&ram);
            drop((memory, ram));
            read(&mut *queues[0], buffer);
            assert_ne!(pinned(), 0, "as long as it is in use");
            drop((queues, raw));
            assert_eq!(pinned(), 0);
        }
        "limit" => {
            limit_locked_memory(SIZE / 2);
            let error = FixedMemory::new(&ram).unwrap_err();
            assert!(matches!(error, FixedError::Limit { mib: 1, limit: 512 }), "{error:?}");
            let text = error.to_string();
            assert!(text.starts_with("buffers=fixed") && text.contains("ulimit -l"), "{text}");
            assert_eq!(pinned(), 0, "nothing is left behind");
        }
        // The kernel cannot share, and a ring's own registration is refused: the ring works
        // without.
        _ => {
            limit_locked_memory(SIZE * 3 / 2);
            let Some(mut memory) = fixed(&ram, 16) else { std::process::exit(42) };
            Arc::get_mut(&mut memory).unwrap().share(false);
            let raw = open(file.as_path(), CacheMode::Writeback, &memory);
            read(&mut *raw.queue().unwrap(), buffer(&ram));
            assert_eq!(raw.fixed_calls(), Some(0));
        }
    }
    std::process::exit(42);
}

fn helper(what: &str) {
    super::run_helper("fixed::test_fixed_helper_process", ENV, what);
}

#[test]
fn test_fixed_memory_is_pinned_once_for_all_queues_and_let_go_of_with_the_last() {
    helper("pinned");
}

#[test]
fn test_fixed_memory_beyond_the_limit_is_refused_by_an_error_that_says_what_to_do() {
    if uring::probe().is_ok() {
        helper("limit");
    }
}

#[test]
fn test_fixed_memory_that_one_ring_may_not_register_costs_it_nothing_else() {
    helper("one ring");
}
