//! What the device needs of its host, and guest memory in files.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmbus_gpadl::GuestRam;

use crate::protocol::PageRange;

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;

/// Guest memory as the device uses it. The methods may block for as long as the kernel needs to
/// free or to allocate the pages.
pub trait HostMemory: Send + Sync {
    /// Returns all pages that the guest can ever have: the RAM that it boots with, and the window
    /// for memory that can be added. Each begins and ends at a multiple of
    /// [`HostMemory::unit`].
    fn regions(&self) -> Vec<PageRange>;

    /// Returns the pages that the host allocates and frees together: 1, or 512 with hugepages of 2
    /// MiB.
    fn unit(&self) -> u64;

    /// Returns pages to the host: whole units within one region. The guest keeps them mapped, and
    /// reads zeros from then on. A page that the guest writes to is allocated again.
    ///
    /// # Errors
    /// The kernel's: the pages may be as they were.
    fn discard(&self, range: PageRange) -> io::Result<()>;

    /// Makes sure that the guest can use pages which were returned to the host: whole units within
    /// one region. Ordinary pages need nothing.
    ///
    /// # Errors
    /// The host has too few hugepages.
    fn reserve(&self, range: PageRange) -> io::Result<()>;

    /// Returns the host's memory that the guest's RAM takes, in bytes.
    fn resident_bytes(&self) -> u64;

    /// Returns the pages that can still be added.
    fn window(&self) -> PageRange;

    /// Makes the first `pages` pages of the window RAM of the guest.
    ///
    /// # Errors
    /// The host cannot; nothing has changed.
    fn plug(&self, pages: u64) -> io::Result<PageRange>;
}

/// The machine's part of adding memory.
pub trait MemorySlots: Send + Sync {
    /// Shows pages to the guest, which lie in the window of the machine's guest memory.
    ///
    /// # Errors
    /// The hypervisor's.
    fn add(&self, range: PageRange) -> io::Result<()>;

    /// Takes all pages from the guest that were added. No vCPU runs.
    fn remove_all(&self);
}

/// Guest memory whose regions are files.
pub struct FileMemory {
    ram: GuestRam,
    files: Vec<FileRegion>,
    unit: u64,
    /// The window, from its first page that can still be added.
    window: Mutex<Range<u64>>,
    /// One past the window's last page, and its first.
    whole_window: Range<u64>,
    slots: Option<Box<dyn MemorySlots>>,
}

struct FileRegion {
    range: PageRange,
    file: Arc<File>,
    /// Bytes.
    offset: u64,
}

impl FileMemory {
    /// Returns the memory of `ram`, whose regions must be mapped from files. `slots`: what shows
    /// the pages of the window of `ram` to the guest. `None`: no memory can be added.
    ///
    /// # Errors
    /// A region has no file.
    pub fn new(ram: GuestRam, slots: Option<Box<dyn MemorySlots>>) -> io::Result<Self> {
        let mut unit = 1;
        let mut files = Vec::new();
        for region in ram.memory().iter() {
            let missing = || io::Error::other("guest memory has no file");
            let file = region.file_offset().ok_or_else(missing)?;
            let range = PageRange::new(region.start_addr().0 / PAGE, region.len() / PAGE);
            let page_size = ram.page_size_of(range.first).ok_or_else(missing)?;
            unit = unit.max(page_size as u64 / PAGE);
            files.push(FileRegion { range, file: Arc::clone(file.arc()), offset: file.start() });
        }
        let whole_window = if slots.is_some() { ram.window() } else { 0..0 };
        let window = Mutex::new(whole_window.clone());
        Ok(Self { ram, files, unit, window, whole_window, slots })
    }

    /// Takes all added memory from the guest and returns it to the host, for a reset: no vCPU runs.
    pub fn reset(&self) {
        let Some(slots) = &self.slots else { return };
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let plugged = self.whole_window.start..window.start;
        if plugged.is_empty() {
            return;
        }
        slots.remove_all();
        *window = self.whole_window.clone();
        self.ram.plug(window.start);
        let range = PageRange::new(plugged.start, plugged.end - plugged.start);
        if let Err(error) = self.discard(range) {
            tracing::warn!(%error, "memory that was added stays allocated after a reset");
        }
    }

    /// Calls `call` with the file's part that has `range`.
    fn in_file(
        &self,
        range: PageRange,
        call: impl FnOnce(&File, u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let region = self
            .files
            .iter()
            .find(|one| one.range.first <= range.first && range.end() <= one.range.end())
            .ok_or(io::ErrorKind::InvalidInput)?;
        let offset = region.offset + (range.first - region.range.first) * PAGE;
        call(&region.file, offset, range.pages * PAGE)
    }
}

/// Calls fallocate on a part of a file, whose size stays.
fn allocate(file: &File, mode: libc::c_int, offset: u64, bytes: u64) -> io::Result<()> {
    let signed = |value: u64| libc::off_t::try_from(value).map_err(io::Error::other);
    let (offset, bytes) = (signed(offset)?, signed(bytes)?);
    let mode = mode | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: the call takes numbers only. It changes the content of guest memory, of which no
    // reference exists in this process: all accesses are volatile.
    match unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, bytes) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl HostMemory for FileMemory {
    fn regions(&self) -> Vec<PageRange> {
        self.files.iter().map(|file| file.range).collect()
    }

    fn unit(&self) -> u64 {
        self.unit
    }

    fn discard(&self, range: PageRange) -> io::Result<()> {
        // A hole in the file: madvise would only drop this process's mapping of a shared file. KVM
        // and all other mappings of the pages lose them immediately.
        self.in_file(range, |file, offset, length| {
            allocate(file, libc::FALLOC_FL_PUNCH_HOLE, offset, length)
        })
    }

    fn reserve(&self, range: PageRange) -> io::Result<()> {
        if self.unit == 1 {
            return Ok(());
        }
        // A hugepage that is missing when the guest touches it would end the guest.
        self.in_file(range, |file, offset, length| allocate(file, 0, offset, length))
    }

    fn resident_bytes(&self) -> u64 {
        // All regions are parts of one file in this machine; count each file once.
        let mut seen: Vec<&Arc<File>> = Vec::new();
        for region in &self.files {
            if !seen.iter().any(|file| Arc::ptr_eq(file, &region.file)) {
                seen.push(&region.file);
            }
        }
        let bytes = |file: &&Arc<File>| file.metadata().map_or(0, |one| one.blocks() * 512);
        seen.iter().map(bytes).sum()
    }

    fn window(&self) -> PageRange {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        PageRange::new(window.start, window.end - window.start)
    }

    fn plug(&self, pages: u64) -> io::Result<PageRange> {
        let slots = self.slots.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let range = PageRange::new(window.start, pages);
        if pages == 0 || range.end() > window.end {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.reserve(range)?;
        slots.add(range)?;
        window.start = range.end();
        self.ram.plug(range.end());
        Ok(range)
    }
}

impl std::fmt::Debug for FileMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileMemory")
            .field("ram", &self.ram)
            .field("unit", &self.unit)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::FromRawFd;

    use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
    use vmbus_gpadl::{GuestBuffer, RangeAssembler, RangeError};

    use super::*;

    /// The window: 64 pages in the second region.
    const WINDOW: Range<u64> = 1024..1088;

    #[derive(Clone, Default)]
    struct Slots(Arc<Mutex<Vec<PageRange>>>);

    impl MemorySlots for Slots {
        fn add(&self, range: PageRange) -> io::Result<()> {
            self.0.lock().unwrap().push(range);
            Ok(())
        }

        fn remove_all(&self) {
            self.0.lock().unwrap().clear();
        }
    }

    fn ram() -> GuestRam {
        // SAFETY: a new descriptor that nothing else owns; the name is a C string.
        let file = unsafe {
            File::from_raw_fd(libc::memfd_create(c"dynamic-memory".as_ptr(), libc::MFD_CLOEXEC))
        };
        file.set_len(320 * PAGE).unwrap();
        let file = Arc::new(file);
        let region = |start: u64, pages: usize, offset| {
            let file = FileOffset::from_arc(Arc::clone(&file), offset);
            (GuestAddress(start), pages * 4096, Some(file))
        };
        let regions = [region(0, 256, 0), region(1024 * PAGE, 64, 256 * PAGE)];
        let memory = GuestMemoryMmap::from_ranges_with_files(regions).unwrap();
        GuestRam::with_window(memory, WINDOW).unwrap()
    }

    /// Returns whether a page list with this page is accepted.
    fn is_accepted(ram: &GuestRam, page: u64) -> bool {
        let words = [4096, page].map(u64::to_le_bytes).concat();
        match RangeAssembler::assemble(GuestBuffer::new(ram.clone()), 1, &words) {
            Ok(_) => true,
            Err(RangeError::NotRam(_)) => false,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn test_memory_plugs_from_the_bottom_and_page_lists_may_have_exactly_that() {
        let (ram, slots) = (ram(), Slots::default());
        let memory = FileMemory::new(ram.clone(), Some(Box::new(slots.clone()))).unwrap();
        assert!(is_accepted(&ram, 255) && !is_accepted(&ram, 1024));
        assert_eq!(memory.plug(16).unwrap(), PageRange::new(1024, 16));
        assert_eq!(memory.plug(8).unwrap(), PageRange::new(1040, 8));
        assert!(is_accepted(&ram, 1024) && is_accepted(&ram, 1047) && !is_accepted(&ram, 1048));
        assert_eq!(memory.window(), PageRange::new(1048, 40));
        for wrong in [0, 41, u64::MAX] {
            assert!(memory.plug(wrong).is_err(), "{wrong}");
        }
        assert_eq!(*slots.0.lock().unwrap(), [PageRange::new(1024, 16), PageRange::new(1040, 8)]);
        ram.memory().write_obj(7_u64, GuestAddress(1030 * PAGE)).unwrap();
        memory.reset();
        assert_eq!((memory.window(), slots.0.lock().unwrap().len()), (PageRange::new(1024, 64), 0));
        assert!(!is_accepted(&ram, 1024));
        assert_eq!(ram.memory().read_obj::<u64>(GuestAddress(1030 * PAGE)).unwrap(), 0);
    }

    #[test]
    fn test_memory_discards_exactly_the_range_and_only_within_a_region() {
        let ram = ram();
        let memory = FileMemory::new(ram.clone(), None).unwrap();
        assert_eq!((memory.unit(), memory.window().pages), (1, 0));
        let write =
            |page: u64| ram.memory().write_obj(page + 1, GuestAddress(page * PAGE)).unwrap();
        (0..256).chain(WINDOW).for_each(write);
        assert_eq!(memory.resident_bytes(), 320 * PAGE);
        memory.discard(PageRange::new(10, 100)).unwrap();
        memory.discard(PageRange::new(1030, 4)).unwrap();
        let gone: Vec<u64> = (0..256)
            .chain(WINDOW)
            .filter(|page| ram.memory().read_obj::<u64>(GuestAddress(page * PAGE)).unwrap() == 0)
            .collect();
        assert_eq!(gone, (10..110).chain(1030..1034).collect::<Vec<_>>());
        for wrong in [(255, 2), (300, 1), (1087, 2), (u64::MAX, 1)] {
            assert!(memory.discard(PageRange::new(wrong.0, wrong.1)).is_err(), "{wrong:?}");
        }
        assert!(memory.plug(1).is_err(), "no memory can be added");
    }

    #[test]
    fn test_memory_without_a_file_is_refused() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
        assert!(FileMemory::new(GuestRam::new(memory).unwrap(), None).is_err());
    }
}
