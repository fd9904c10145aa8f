//! Guest memory of hugepages: the kernel maps it in pages of 2 MiB, so no smaller piece may be
//! mapped contiguously.
//!
//! Tests that access the memory need a host with free hugepages. They are ignored here, and `cargo
//! xtask test` runs them in its test host, which has some (`test_host` in integration-tests). To
//! run them by hand, as root: `sysctl vm.nr_hugepages=8` and `cargo test -p vmbus-gpadl --test
//! hugepages -- --include-ignored`.

use std::fs::{self, File};
use std::io;
use std::os::fd::FromRawFd;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};
use vmbus_gpadl::leaked_address_space;
use vmbus_gpadl::{
    ContiguousError, ContiguousMapping, ContiguousMappingError, GuestBuffer, GuestRam,
    RangeAssembler,
};

const PAGE: usize = 4096;
const HUGE: usize = 2 << 20;
/// 4 KiB pages of a hugepage.
const EACH: u64 = (HUGE / PAGE) as u64;
const HUGEPAGES: usize = 4;

/// Serialises the tests, which inspect the mappings of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn huge_memfd(bytes: usize) -> File {
    let flags = libc::MFD_CLOEXEC | libc::MFD_HUGETLB | libc::MFD_HUGE_2MB;
    // SAFETY: the name is a C string; the call accesses no other memory.
    let fd = unsafe { libc::memfd_create(c"hugepages-test".as_ptr(), flags) };
    assert!(fd >= 0, "this kernel has no hugetlbfs: {}", io::Error::last_os_error());
    // SAFETY: a fresh descriptor without another owner.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(bytes as u64).unwrap();
    file
}

/// Returns guest RAM of four hugepages at guest address 0. Without `reserve` it can be mapped on
/// every host, but must not be accessed.
fn ram(reserve: bool) -> GuestRam {
    let flags = if reserve { libc::MAP_SHARED } else { libc::MAP_SHARED | libc::MAP_NORESERVE };
    let region = MmapRegionBuilder::new(HUGEPAGES * HUGE)
        .with_file_offset(FileOffset::new(huge_memfd(HUGEPAGES * HUGE), 0))
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(flags)
        .with_hugetlbfs(true)
        .build()
        .expect("4 free hugepages: sysctl vm.nr_hugepages=8");
    let region = GuestRegionMmap::new(region, GuestAddress(0)).unwrap();
    GuestRam::new(GuestMemoryMmap::from_regions(vec![region]).unwrap()).unwrap()
}

fn buffer(ram: &GuestRam, pages: &[u64]) -> GuestBuffer {
    let mut bytes = (pages.len() as u64 * PAGE as u64).to_le_bytes().to_vec();
    bytes.extend(pages.iter().flat_map(|page| page.to_le_bytes()));
    RangeAssembler::assemble(GuestBuffer::new(ram.clone()), 1, &bytes).unwrap()
}

/// Returns the mappings of the guest memory's file in this process: start and bytes.
fn mappings() -> Vec<(usize, usize)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let range = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        Some((start, usize::from_str_radix(end, 16).ok()? - start))
    };
    maps.lines().filter(|line| line.contains("hugepages-test")).filter_map(range).collect()
}

/// Memory directly before which new mappings are placed, because the kernel places them downwards.
struct Neighbour {
    start: *mut u8,
}

impl Neighbour {
    const BYTES: usize = HUGE;

    fn new() -> Self {
        // SAFETY: a fresh mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe {
            let (access, flags) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            libc::mmap(ptr::null_mut(), Self::BYTES, access, flags, -1, 0)
        };
        assert_ne!(start, libc::MAP_FAILED);
        let start = start.cast::<u8>();
        // SAFETY: this process owns the mapping.
        unsafe { start.write_bytes(0xAB, Self::BYTES) };
        Self { start }
    }

    /// Returns true when the neighbour still has its bytes. The kernel reads them, so that
    /// unreadable memory gives an error and no crash.
    fn is_intact(&self) -> bool {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; Self::BYTES];
        let own = File::open("/proc/self/mem").unwrap();
        own.read_exact_at(&mut bytes, self.start as u64).is_ok() && bytes == vec![0xAB; Self::BYTES]
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // SAFETY: this process owns the mapping, and no code uses it any more.
        unsafe { libc::munmap(self.start.cast(), Self::BYTES) };
    }
}

/// The data of rings of all sizes: neighbouring and scattered pages, from the start of a hugepage
/// and from inside. Some of their reservations would lie at a hugepage boundary, and there the
/// kernel would have mapped a whole hugepage over each piece and its neighbours.
#[test]
fn test_mapping_of_small_pages_in_hugepages_is_refused_and_leaves_the_neighbours_alone() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ram = ram(false);
    let (before, leaked) = (mappings(), leaked_address_space());
    for pages in 1..256_u64 {
        for (first, step) in [(0, 1), (3, 2)] {
            let list: Vec<u64> = (0..pages).map(|page| first + page * step).collect();
            let buffer = buffer(&ram, &list);
            let neighbour = Neighbour::new();
            let twice = ContiguousMapping::twice(buffer.slices(0, buffer.len()).unwrap(), 512);
            assert!(
                matches!(twice, Err(ContiguousMappingError::InsidePage)),
                "{pages} {first} {step}: {twice:?}"
            );
            let whole = buffer.contiguous(0, buffer.len()).map(|whole| whole.is_remapped());
            let refused =
                matches!(whole, Err(ContiguousError::Mapping(ContiguousMappingError::InsidePage)));
            assert!(refused || matches!(whole, Ok(false)), "{pages} {first} {step}: {whole:?}");
            assert!(neighbour.is_intact(), "{pages} {first} {step}");
        }
    }
    assert_eq!((mappings(), leaked_address_space()), (before, leaked));
}

#[test]
#[ignore = "needs hugepages: cargo xtask test runs it in its test host"]
fn test_contiguous_of_whole_hugepages_shows_them_in_order_and_is_unmapped() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ram = ram(true);
    let before = mappings();
    // The last page of hugepage 3, all of hugepage 0, the first pages of hugepage 2.
    let list: Vec<u64> =
        (4 * EACH - 1..4 * EACH).chain(0..EACH).chain(2 * EACH..2 * EACH + 5).collect();
    let buffer = buffer(&ram, &list);
    let bytes: Vec<u8> = (0..buffer.len()).map(|at| (at / PAGE * 31 + at * 7 + 1) as u8).collect();
    buffer.write(0, &bytes).unwrap();
    let neighbour = Neighbour::new();
    let whole = buffer.contiguous(100, buffer.len() - 200).unwrap();
    assert!(whole.is_remapped());
    let mut seen = vec![0; whole.slice().len()];
    whole.slice().copy_to(&mut seen[..]);
    assert!(seen == bytes[100..bytes.len() - 100]);
    whole.slice().write_obj(0xC3_u8, 5).unwrap();
    assert_eq!(buffer.read_obj::<u8>(105), Ok(0xC3));
    assert!(mappings().len() > before.len());
    drop(whole);
    assert_eq!(mappings(), before);
    assert!(neighbour.is_intact());
}

#[test]
#[ignore = "needs hugepages: cargo xtask test runs it in its test host"]
fn test_mirror_of_whole_hugepages_shows_them_twice_and_one_page_less_is_refused() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ram = ram(true);
    let list: Vec<u64> = (2 * EACH..3 * EACH).chain(0..EACH).collect();
    let buffer = buffer(&ram, &list);
    let len = buffer.len();
    let before = mappings();
    let mirror = ContiguousMapping::twice(buffer.slices(0, len).unwrap(), 16).unwrap();
    let address = mirror.start();
    assert!(address.addr().get().is_multiple_of(HUGE));
    ram.memory().write_obj(0x55_u8, GuestAddress(7)).unwrap();
    // Hugepage 0 is the second of the list.
    for copy in 0..2 {
        // SAFETY: the mirror has twice `len` bytes; only this process uses them.
        assert_eq!(unsafe { address.add(copy * len + HUGE + 7).read_volatile() }, 0x55);
    }
    drop(mirror);
    for (offset, part) in [(0, len - PAGE), (PAGE, len - PAGE)] {
        let slices = buffer.slices(offset, part).unwrap();
        assert!(matches!(
            ContiguousMapping::twice(slices, 16),
            Err(ContiguousMappingError::InsidePage)
        ));
    }
    assert_eq!(mappings(), before);
}
