//! The memory map against which page numbers are checked.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress,
};
use vmbus_protocol::limits::{PAGE_SHIFT, PAGE_SIZE};
use vmbus_protocol::num::{u64_of, usize_of_u64};

use crate::page_size;
use crate::run::HostPage;

/// The guest RAM of a VM: the memory that guests may share with the host, and its mapping. The
/// mapping is constant for its life. A part of it may be a window for hot add
/// ([`GuestRam::with_window`]), whose pages are RAM only once they are plugged.
///
/// Cloning is cheap (one reference count). Every buffer keeps its map alive, so a view can never
/// outlive its memory.
#[derive(Clone, Debug)]
pub struct GuestRam {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    memory: GuestMemoryMmap,
    /// Sorted by guest page number, never overlapping.
    regions: Vec<Region>,
    /// For each of `regions`, the bytes of one page of the file behind it ([`page_size::of`]).
    /// `None` when it cannot be mapped again. The list is separate from the regions, which every
    /// page list searches.
    file_pages: Vec<Option<usize>>,
    granules: Granules,
    /// Pages that may be plugged, from the lowest on. Empty in a VM without hot add.
    window: Range<u64>,
    /// One past the last plugged page of the window.
    plugged: AtomicU64,
}

/// A table that converts guest pages to host pages without a search. The branch of a search is
/// mispredicted half of the time when pages of two regions alternate, and that costs more than all
/// other work for a page.
#[derive(Debug)]
struct Granules {
    /// log2 of the pages of one granule.
    shift: u32,
    /// For each granule that lies in one region as a whole, the addend of [`HostPage::of`]; 0 for
    /// the others, and for those with a page of the window that is not plugged.
    to_host: Box<[AtomicU64]>,
}

/// Most granules of one map: the table takes a quarter of the first-level cache.
const MAX_GRANULES: u64 = 1024;

/// One region of RAM in pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    /// First guest page number.
    pub(crate) first: u64,
    /// Number of pages.
    pub(crate) pages: u64,
    /// Host page number of the first page.
    pub(crate) host_page: u64,
}

impl Region {
    fn end(&self) -> u64 {
        self.first.wrapping_add(self.pages)
    }
}

/// Returns the addend that converts guest pages of region `index` to host pages.
fn to_host(index: usize, region: &Region) -> u64 {
    HostPage::shift(region.first, region.host_page, u64_of(index.wrapping_add(1)))
}

impl Granules {
    /// Returns the table. `absent`: pages that are not plugged.
    fn new(regions: &[Region], absent: &Range<u64>) -> Self {
        let end = regions.last().map_or(0, Region::end);
        let mut shift = 0;
        while end >> shift > MAX_GRANULES {
            shift = u32::wrapping_add(shift, 1);
        }
        let granules = 0..end.div_ceil(1 << shift);
        let of_granule = |granule| AtomicU64::new(Self::addend(regions, shift, granule, absent));
        Self { shift, to_host: granules.map(of_granule).collect() }
    }

    /// Returns the table's entry for a granule.
    fn addend(regions: &[Region], shift: u32, granule: u64, absent: &Range<u64>) -> u64 {
        let (first, after) = (granule << shift, granule.wrapping_add(1) << shift);
        if first < absent.end && absent.start < after {
            return 0;
        }
        let index = regions.partition_point(|region| region.end() <= first);
        let region =
            regions.get(index).filter(|region| region.first <= first && after <= region.end());
        region.map_or(0, |region| to_host(index, region))
    }

    /// Adapts the table to a change of the pages that are not plugged, all of them in `window`.
    fn update(&self, regions: &[Region], window: &Range<u64>, absent: &Range<u64>) {
        for (granule, entry) in (0_u64..).zip(&self.to_host) {
            let (first, after) = (granule << self.shift, granule.wrapping_add(1) << self.shift);
            if first < window.end && window.start < after {
                let addend = Self::addend(regions, self.shift, granule, absent);
                entry.store(addend, Ordering::Relaxed);
            }
        }
    }
}

/// References to a map's tables, so that a loop over pages does not dereference the map each time.
#[derive(Clone, Copy)]
pub(crate) struct Lookup<'a> {
    regions: &'a [Region],
    to_host: &'a [AtomicU64],
    shift: u32,
    inner: &'a Inner,
}

impl Lookup<'_> {
    /// Returns the host page of guest page `pfn`. `None` when it is not RAM.
    #[inline]
    pub(crate) fn host_page(&self, pfn: u64) -> Option<HostPage> {
        // A guest names plugged pages only after it was told of them, so no stronger order is
        // needed.
        match self.to_host.get(usize_of_u64(pfn >> self.shift))?.load(Ordering::Relaxed) {
            0 => self.search(pfn),
            to_host => Some(HostPage::of(pfn, to_host)),
        }
    }

    /// Searches the regions, for the few granules that a region covers only in part.
    #[cold]
    fn search(&self, pfn: u64) -> Option<HostPage> {
        if self.inner.absent().contains(&pfn) {
            return None;
        }
        let index = self.regions.partition_point(|region| region.first <= pfn).checked_sub(1)?;
        let region = self
            .regions
            .get(index)
            .filter(|region| pfn.wrapping_sub(region.first) < region.pages)?;
        Some(HostPage::of(pfn, to_host(index, region)))
    }
}

/// The location of a piece of guest RAM in the file behind it, for a second mapping of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct FileRun<'a> {
    /// The file (a memfd) behind the region.
    pub file: &'a File,
    /// Byte offset in the file.
    pub offset: u64,
    /// Bytes from the offset to the end of the region.
    pub available: usize,
    /// Whether the file is mapped shared: another mapping of it then shows the same bytes.
    pub shared: bool,
    /// Bytes of one page of the file, a power of two: the kernel maps the file in multiples of it.
    /// The host's page size, or that of the hugepages of a hugetlbfs file.
    pub page_size: usize,
}

/// The reasons that the bus cannot use a memory map.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RamError {
    /// A region does not consist of 4 KiB pages, the unit of page lists.
    #[error("guest memory region at {start:#x} of {len:#x} bytes is not made of whole 4 KiB pages")]
    NotPages {
        /// Guest address of the region.
        start: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// The host address of a region needs more than 56 bits.
    #[error(
        "guest memory region at {start:#x} is mapped beyond the host addresses that a page run can \
        hold"
    )]
    HostAddress {
        /// Guest address of the region.
        start: u64,
    },
    /// The map has more regions than a page run can distinguish, which is far more than any
    /// machine has.
    #[error("guest memory has {regions} regions, which is more than a page run can distinguish")]
    TooManyRegions {
        /// Regions in the map.
        regions: usize,
    },
}

impl Inner {
    /// Returns the pages of the window that are not plugged.
    fn absent(&self) -> Range<u64> {
        self.plugged.load(Ordering::Relaxed)..self.window.end
    }
}

impl GuestRam {
    /// Returns the map of a VM's RAM. It must not contain MMIO windows, holes or ROM: guests may
    /// share all memory in it.
    ///
    /// # Errors
    /// [`RamError`] when a region is not page-aligned or is mapped at an address beyond 56 bits, or
    /// when there are a million of them.
    pub fn new(memory: GuestMemoryMmap) -> Result<Self, RamError> {
        Self::with_window(memory, 0..0)
    }

    /// Returns the map of a VM's RAM, in which the pages of `window` are mapped and not plugged:
    /// page lists with them are refused until [`GuestRam::plug`].
    ///
    /// # Errors
    /// See [`GuestRam::new`].
    pub fn with_window(memory: GuestMemoryMmap, window: Range<u64>) -> Result<Self, RamError> {
        let mut regions = Vec::with_capacity(memory.num_regions());
        for region in memory.iter() {
            let (start, len) = (region.start_addr().0, region.len());
            let page_mask = u64_of(PAGE_SIZE).wrapping_sub(1);
            let host = region
                .get_host_address(MemoryRegionAddress(0))
                .map_err(|_| RamError::HostAddress { start })?
                .expose_provenance();
            let host = u64_of(host);
            if start & page_mask != 0 || len & page_mask != 0 || host & page_mask != 0 {
                return Err(RamError::NotPages { start, len });
            }
            if host.checked_add(len).is_none_or(|end| end >> 56 != 0) {
                return Err(RamError::HostAddress { start });
            }
            let first = start >> PAGE_SHIFT;
            let file_page = region.file_offset().and_then(|file| page_size::of(file.file()));
            let region = Region { first, pages: len >> PAGE_SHIFT, host_page: host >> PAGE_SHIFT };
            regions.push((region, file_page));
        }
        if regions.len() >= HostPage::TAGS {
            return Err(RamError::TooManyRegions { regions: regions.len() });
        }
        regions.sort_by_key(|(region, _)| region.first);
        let (regions, file_pages): (Vec<_>, Vec<_>) = regions.into_iter().unzip();
        let granules = Granules::new(&regions, &window);
        let plugged = AtomicU64::new(window.start);
        let inner = Inner { memory, regions, file_pages, granules, window, plugged };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Plugs the pages of the window below page `end`, and unplugs the others: page lists may have
    /// the former and not the latter. Lists that were accepted before stay valid, as all memory
    /// stays mapped. Affects all clones. One thread may call it at a time.
    pub fn plug(&self, end: u64) {
        let Inner { regions, granules, window, plugged, .. } = &*self.inner;
        plugged.store(end.clamp(window.start, window.end), Ordering::Relaxed);
        granules.update(regions, window, &self.inner.absent());
    }

    /// Returns the memory itself, for reads and writes by guest address.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.inner.memory
    }

    /// Returns the pages that can be plugged, whether they are or not. Empty without hot add.
    #[must_use]
    pub fn window(&self) -> Range<u64> {
        self.inner.window.clone()
    }

    /// Returns the bytes of one page of the file behind guest page `pfn`: the host's page size, or
    /// that of hugepages. `None`: the page is outside of the map, or its region has no file, or one
    /// with a page size that the host does not report.
    #[must_use]
    pub fn page_size_of(&self, pfn: u64) -> Option<usize> {
        let regions = &self.inner.regions;
        let index = regions.iter().position(|one| pfn.wrapping_sub(one.first) < one.pages)?;
        *self.inner.file_pages.get(index)?
    }

    /// Returns the number of pages of RAM, without those that are not plugged.
    #[must_use]
    pub fn pages(&self) -> u64 {
        let absent = self.inner.absent();
        let mapped =
            self.inner.regions.iter().fold(0_u64, |sum, region| sum.saturating_add(region.pages));
        mapped.saturating_sub(absent.end.saturating_sub(absent.start))
    }

    /// Returns true when both are the same map, not only equal ones.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Returns the tables for looking up many pages.
    #[inline]
    pub(crate) fn lookup(&self) -> Lookup<'_> {
        let Inner { regions, granules, .. } = &*self.inner;
        Lookup { regions, to_host: &granules.to_host, shift: granules.shift, inner: &self.inner }
    }

    /// Returns true when both host addresses lie in one region. Only then may one slice extend from
    /// one to the other.
    pub(crate) fn same_region(&self, one: usize, other: usize) -> bool {
        let of = |address: usize| self.region_of(u64_of(address) >> PAGE_SHIFT);
        of(one) == of(other)
    }

    /// Returns the guest page number of a host page number of this map.
    pub(crate) fn guest_page_of(&self, host_page: u64) -> Option<u64> {
        let region = self.inner.regions.get(self.region_of(host_page)?)?;
        Some(region.first.wrapping_add(host_page.wrapping_sub(region.host_page)))
    }

    /// Returns the index of the region that contains a host page.
    fn region_of(&self, host_page: u64) -> Option<usize> {
        self.inner
            .regions
            .iter()
            .position(|region| host_page.wrapping_sub(region.host_page) < region.pages)
    }

    /// Returns the file behind the host address `address` of this map. `None` when the region has
    /// no file (anonymous memory), or one with a page size that the host does not report.
    #[must_use]
    pub fn file_at(&self, address: usize) -> Option<FileRun<'_>> {
        let host_page = u64_of(address) >> PAGE_SHIFT;
        let pfn = self.guest_page_of(host_page)?;
        let page_size = (*self.inner.file_pages.get(self.region_of(host_page)?)?)?;
        let region = self.inner.memory.find_region(GuestAddress(pfn << PAGE_SHIFT))?;
        let file = region.file_offset()?;
        let in_page = u64_of(address) & u64_of(PAGE_SIZE).wrapping_sub(1);
        let into = (pfn << PAGE_SHIFT).checked_sub(region.start_addr().0)?.checked_add(in_page)?;
        Some(FileRun {
            file: file.file(),
            offset: file.start().checked_add(into)?,
            available: usize_of_u64(region.len().checked_sub(into)?),
            shared: region.flags() & libc::MAP_SHARED != 0,
            page_size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Run;

    fn ram(ranges: &[(u64, usize)]) -> GuestRam {
        let ranges: Vec<_> =
            ranges.iter().map(|&(start, len)| (GuestAddress(start), len)).collect();
        GuestRam::new(GuestMemoryMmap::from_ranges(&ranges).unwrap()).unwrap()
    }

    /// Returns the guest page of the host page of `pfn`.
    fn round_trip(ram: &GuestRam, pfn: u64) -> Option<u64> {
        ram.guest_page_of(Run::one(ram.lookup().host_page(pfn)?).host_page())
    }

    #[test]
    fn test_ram_region_lookup_at_edges_finds_only_ram() {
        let ram = ram(&[(0, 0x10000), (0x100000, 0x4000), (0x1_0000_0000, 0x2000)]);
        for (pfn, inside) in [
            (0, true),
            (0xF, true),
            (0x10, false),
            (0xFF, false),
            (0x100, true),
            (0x103, true),
            (0x104, false),
            (0xF_FFFF, false),
            (0x10_0000, true),
            (0x10_0001, true),
            (0x10_0002, false),
            (u64::MAX, false),
        ] {
            assert_eq!(ram.lookup().host_page(pfn).is_some(), inside, "page {pfn:#x}");
        }
        assert_eq!(ram.pages(), 16 + 4 + 2);
    }

    #[test]
    fn test_ram_with_many_small_regions_in_one_granule_finds_each() {
        // The region at a high address makes granules large; 300 regions of one page share a few of
        // them.
        let mut map: Vec<_> = (0..300).map(|index| (index * 0x3000, 0x1000)).collect();
        map.push((0x100_0000_0000, 0x1000));
        let ram = ram(&map);
        for index in 0..300 {
            assert_eq!(round_trip(&ram, index * 3), Some(index * 3));
            assert_eq!(round_trip(&ram, index * 3 + 1), None);
            assert_eq!(round_trip(&ram, index * 3 + 2), None);
        }
        assert_eq!(round_trip(&ram, 0x1000_0000), Some(0x1000_0000));
        assert_eq!(round_trip(&ram, 0x0FFF_FFFF), None);
        assert_eq!(round_trip(&ram, 0x1000_0001), None);
    }

    #[test]
    fn test_ram_window_has_exactly_the_plugged_pages() {
        let memory = [(0, 0x10_0000), (0x100_0000, 0x80_0000), (0x1_0000_0000, 0x1000)];
        let ranges = memory.map(|(start, len)| (GuestAddress(start), len));
        let memory = GuestMemoryMmap::from_ranges(&ranges).unwrap();
        // The window is a region's end, and no multiple of the granules of 1,025 pages.
        let ram = GuestRam::with_window(memory, 0x1201..0x1800).unwrap();
        let clone = ram.clone();
        for end in [0x1201, 0x1202, 0x1700, 0x1800, 0x1500, 0, u64::MAX, 0x1201] {
            ram.plug(end);
            let plugged = end.clamp(0x1201, 0x1800);
            for pfn in [0, 0x1000, 0x1200, 0x10_0000] {
                assert_eq!(round_trip(&clone, pfn), Some(pfn), "{pfn:#x} is always RAM");
            }
            for pfn in 0x1201..0x1801 {
                let expected = (pfn < plugged).then_some(pfn);
                assert_eq!(round_trip(&clone, pfn), expected, "{pfn:#x} of {end:#x}");
            }
            assert_eq!(clone.pages(), 0x100 + 0x800 + 1 - (0x1800 - plugged));
        }
    }

    #[test]
    fn test_ram_guest_page_of_host_page_round_trips() {
        let ram = ram(&[(0, 0x4000), (0x100000, 0x4000)]);
        for pfn in [0, 3, 0x100, 0x103] {
            assert_eq!(round_trip(&ram, pfn), Some(pfn));
        }
    }

    #[test]
    fn test_ram_with_partial_page_is_refused() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0x800), 0x1000)]).unwrap();
        assert_eq!(
            GuestRam::new(memory).unwrap_err(),
            RamError::NotPages { start: 0x800, len: 0x1000 }
        );
    }

    #[test]
    fn test_ram_without_file_has_no_file_run() {
        let ram = ram(&[(0, 0x4000)]);
        let host = Run::one(ram.lookup().host_page(0).unwrap()).host_address();
        assert!(ram.file_at(host).is_none());
    }
}
