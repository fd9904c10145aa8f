//! The guest's RAM: one memfd, mapped shared, so that a ring can be mapped a second time and a
//! backend process can share it.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::sync::Arc;

use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap,
};

use super::MemoryLayout;

/// Guest RAM. Regions carry the memfd and their offset in it; clones share the mapping.
pub type GuestMemory = GuestMemoryMmap<()>;

const NAME: &CStr = c"synthvm-ram";

/// An error in allocating guest RAM.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host kernel did not create the memfd.
    #[error("the host kernel refused a memory file: {0}")]
    Memfd(#[source] io::Error),
    /// The host kernel refused the size.
    #[error("the host kernel refused {mib} MiB of guest memory: {source}")]
    Size {
        /// RAM in MiB.
        mib: u64,
        /// The cause.
        source: io::Error,
    },
    /// The host has too few free hugepages.
    #[error("{mib} MiB of hugepages are not free on this host: {source}")]
    Hugepages {
        /// RAM in MiB.
        mib: u64,
        /// 2 MiB pages needed.
        pages: u64,
        /// The cause.
        source: MmapRegionError,
    },
    /// The address space is too small.
    #[error("{mib} MiB of guest memory cannot be mapped: {source}")]
    Map {
        /// RAM in MiB.
        mib: u64,
        /// The cause.
        source: MmapRegionError,
    },
    /// The regions do not form a memory map. Cannot happen with a memory layout of this crate.
    #[error("guest memory map: {0}")]
    Regions(String),
}

/// Allocates and maps the RAM of `layout`, and maps its window for memory that is added later.
///
/// With `hugepages`, the kernel reserves every page of RAM now: a missing page would kill the guest
/// later.
/// Otherwise the kernel allocates pages when the guest touches them, as transparent hugepages if
/// the host allows them.
///
/// # Errors
/// [`MemoryError`]; all causes are in the host.
pub(crate) fn allocate(layout: &MemoryLayout, hugepages: bool) -> Result<GuestMemory, MemoryError> {
    let size = layout.ram_size() + layout.hot_add.len();
    let mib = layout.ram_size() >> 20;
    let file = Arc::new(memfd(hugepages).map_err(MemoryError::Memfd)?);
    file.set_len(size).map_err(|source| MemoryError::Size { mib, source })?;
    seal(&file).map_err(MemoryError::Memfd)?;

    let mut regions = Vec::with_capacity(3);
    let mut offset = 0;
    let ranges = [layout.low_ram, layout.high_ram, layout.hot_add];
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        // Without MAP_NORESERVE the kernel reserves the hugepages in mmap.
        let is_ram = range != layout.hot_add;
        let reserve = if hugepages && is_ram { 0 } else { libc::MAP_NORESERVE };
        let mapping = MmapRegionBuilder::new(range.len() as usize)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED | reserve)
            .with_file_offset(FileOffset::from_arc(Arc::clone(&file), offset))
            .with_hugetlbfs(hugepages)
            .build()
            .map_err(|source| match hugepages {
                true => MemoryError::Hugepages { mib, pages: mib.div_ceil(2), source },
                false => MemoryError::Map { mib, source },
            })?;
        advise(mapping.as_ptr(), mapping.size(), hugepages);
        let region = GuestRegionMmap::new(mapping, GuestAddress(range.start))
            .ok_or_else(|| MemoryError::Regions(format!("{range:x?} does not fit")))?;
        regions.push(region);
        offset += range.len();
    }
    let memory = GuestMemory::from_regions(regions)
        .map_err(|error| MemoryError::Regions(error.to_string()))?;
    debug_assert_eq!(memory.iter().map(GuestMemoryRegion::len).sum::<u64>(), size);
    Ok(memory)
}

fn memfd(hugepages: bool) -> io::Result<File> {
    let huge = if hugepages { libc::MFD_HUGETLB | libc::MFD_HUGE_2MB } else { 0 };
    // SAFETY: NAME is a C string; the call has no other memory argument.
    let fd = unsafe {
        libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | huge)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Seals the size: no other process that maps the file can shrink it (SIGBUS here) or grow it.
fn seal(file: &File) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: fcntl on a descriptor of this process, with an integer argument.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives advice to the kernel. The machine works without it, so errors are ignored.
fn advise(start: *mut u8, len: usize, hugepages: bool) {
    let advice: &[libc::c_int] = if hugepages {
        &[libc::MADV_DONTDUMP]
    } else {
        &[libc::MADV_DONTDUMP, libc::MADV_HUGEPAGE]
    };
    for &advice in advice {
        // SAFETY: the range is a mapping of this process; neither advice changes its content or
        // lifetime.
        unsafe { libc::madvise(start.cast(), len, advice) };
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;
    use crate::memory::HIGH_RAM_BASE;

    #[test]
    fn test_allocate_keeps_file_offset_per_region() {
        let layout = MemoryLayout::new((3 << 30) + (64 << 20));
        let memory = allocate(&layout, false).unwrap();
        let offsets: Vec<u64> =
            memory.iter().map(|region| region.file_offset().unwrap().start()).collect();
        assert_eq!(offsets, [0, 3 << 30]);
    }

    #[test]
    fn test_allocate_write_is_seen_through_the_file() {
        use std::os::unix::fs::FileExt;
        let layout = MemoryLayout::new((3 << 30) + (64 << 20));
        let memory = allocate(&layout, false).unwrap();
        memory.write_obj(0x1234_5678_u32, GuestAddress(HIGH_RAM_BASE + 8)).unwrap();
        let file = memory.iter().next().unwrap().file_offset().unwrap().arc().clone();
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, (3 << 30) + 8).unwrap();
        assert_eq!(u32::from_le_bytes(bytes), 0x1234_5678);
        assert!(file.set_len(4096).is_err(), "the size is sealed");
    }

    #[test]
    fn test_allocate_leaves_the_hole_out() {
        let memory = allocate(&MemoryLayout::new((3 << 30) + (2 << 20)), false).unwrap();
        assert!(!memory.address_in_range(GuestAddress(0xC000_0000)));
        assert!(!memory.address_in_range(GuestAddress(0xF800_0000)));
        assert!(memory.address_in_range(GuestAddress(HIGH_RAM_BASE)));
    }
}
