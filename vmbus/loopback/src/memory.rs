//! Guest memory: regions backed by memfds, and an allocator of pages.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::sync::Mutex;

use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmbus_client::{Mdl, NtStatus};
use vmbus_gpadl::GuestRam;
use vmbus_protocol::limits::PAGE_SIZE;

use crate::synic::lock;

const PAGE: u64 = PAGE_SIZE as u64;

/// The positions of the pages of an allocation in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One run of neighbouring pages, ascending.
    Contiguous,
    /// Pairs of neighbours; no two pairs are neighbours.
    HalfContiguous,
    /// No page is followed by its neighbour.
    Scattered,
}

/// Guest RAM with an allocator of pages and a flat table of virtual addresses, like those of a
/// guest kernel.
///
/// Deterministic: the same calls give the same pages.
#[derive(Debug)]
pub struct GuestPages {
    ram: GuestRam,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The regions, with their allocated pages.
    free: Vec<Region>,
    /// Virtual page number -> guest page number.
    virtual_pages: BTreeMap<u64, u64>,
    next_virtual: u64,
    /// Guest page number -> number of its locks.
    locked: BTreeMap<u64, u32>,
    random: u64,
}

#[derive(Debug)]
struct Region {
    first: u64,
    taken: Vec<bool>,
    free: usize,
}

impl GuestPages {
    /// Returns zeroed RAM in `regions`: (guest address, bytes), whole pages, not overlapping. Page
    /// 0 is never allocated.
    pub(crate) fn new(regions: &[(u64, usize)]) -> io::Result<Self> {
        let mut files = Vec::with_capacity(regions.len());
        for &(start, bytes) in regions {
            files.push((GuestAddress(start), bytes, Some(FileOffset::new(memfd(bytes)?, 0))));
        }
        let memory = GuestMemoryMmap::from_ranges_with_files(files).map_err(io::Error::other)?;
        let ram = GuestRam::new(memory).map_err(io::Error::other)?;
        let mut free: Vec<_> = regions
            .iter()
            .map(|&(start, bytes)| {
                let count = bytes / PAGE_SIZE;
                Region { first: start / PAGE, taken: vec![false; count], free: count }
            })
            .collect();
        free.sort_by_key(|region| region.first);
        if let Some(region) = free.iter_mut().find(|region| region.first == 0 && region.free != 0) {
            region.take(0);
        }
        let state = State {
            free,
            virtual_pages: BTreeMap::new(),
            next_virtual: 0xFFFF_8000_0000_0000 / PAGE,
            locked: BTreeMap::new(),
            random: 0x9E37_79B9_7F4A_7C15,
        };
        Ok(Self { ram, state: Mutex::new(state) })
    }

    /// Returns the memory that host and guest share.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Allocates `count` pages in `layout`. `None` when memory has not enough free pages in that
    /// layout.
    #[must_use]
    pub fn allocate(&self, count: usize, layout: Layout) -> Option<Vec<u64>> {
        let mut state = lock(&self.state);
        let pages = match layout {
            Layout::Contiguous => state.contiguous(count)?,
            Layout::HalfContiguous => state.runs(count, 2)?,
            Layout::Scattered => state.runs(count, 1)?,
        };
        Some(pages)
    }

    /// Frees pages.
    ///
    /// # Panics
    /// A page is free already, outside memory or locked, which is a bug of the caller.
    pub fn free(&self, pages: &[u64]) {
        let mut state = lock(&self.state);
        for &page in pages {
            assert!(
                !state.locked.contains_key(&page),
                "page {page:#x} is freed while it is locked"
            );
            let region = state.free.iter_mut().find(|region| region.holds(page));
            let region = region.unwrap_or_else(|| panic!("page {page:#x} is not guest memory"));
            let index = (page - region.first) as usize;
            assert!(region.taken[index], "page {page:#x} is freed twice");
            region.taken[index] = false;
            region.free += 1;
        }
    }

    /// Returns the number of free pages.
    #[must_use]
    pub fn free_pages(&self) -> usize {
        lock(&self.state).free.iter().map(|region| region.free).sum()
    }

    /// Returns the number of pages that are locked for a GPADL.
    #[must_use]
    pub fn locked_pages(&self) -> usize {
        lock(&self.state).locked.len()
    }

    /// Maps `pages` one after the other at a new virtual address.
    #[must_use]
    pub fn map_virtual(&self, pages: &[u64]) -> u64 {
        let mut state = lock(&self.state);
        let first = state.next_virtual;
        for (virtual_page, &page) in (first..).zip(pages) {
            state.virtual_pages.insert(virtual_page, page);
        }
        // A hole, so that an access past the end is detected.
        state.next_virtual = first + pages.len() as u64 + 1;
        first * PAGE
    }

    /// Undoes [`GuestPages::map_virtual`] for `count` pages at `address`.
    pub fn unmap_virtual(&self, address: u64, count: usize) {
        let first = address / PAGE;
        lock(&self.state)
            .virtual_pages
            .retain(|&page, _| page < first || page - first >= count as u64);
    }

    pub(crate) fn probe_and_lock(&self, address: u64, bytes: u32) -> Result<Mdl, NtStatus> {
        let mut state = lock(&self.state);
        let offset = (address % PAGE) as u32;
        let count =
            if bytes == 0 { 0 } else { (u64::from(offset) + u64::from(bytes)).div_ceil(PAGE) };
        let first = address / PAGE;
        let pages: Option<Vec<u64>> =
            (first..first + count).map(|page| state.virtual_pages.get(&page).copied()).collect();
        let pages = pages.ok_or(NtStatus::INVALID_PARAMETER)?;
        for &page in &pages {
            *state.locked.entry(page).or_default() += 1;
        }
        Mdl::new(bytes, offset, pages).map_err(|_| NtStatus::INVALID_PARAMETER)
    }

    pub(crate) fn unlock(&self, mdl: &Mdl) {
        let mut state = lock(&self.state);
        for page in mdl.pages() {
            if let Some(count) = state.locked.get_mut(page) {
                *count -= 1;
                if *count == 0 {
                    state.locked.remove(page);
                }
            }
        }
    }

    /// Returns a copy of the bytes of a chain, pieces concatenated.
    ///
    /// # Panics
    /// A page is outside memory.
    #[must_use]
    pub fn read_mdl(&self, mdl: &Mdl) -> Vec<u8> {
        let mut bytes = vec![0; mdl.total_bytes() as usize];
        let mut rest = &mut bytes[..];
        for (address, len) in spans(mdl) {
            let (now, later) = rest.split_at_mut(len);
            self.ram
                .memory()
                .read_slice(now, address)
                .expect("the pages of an MDL are guest memory");
            rest = later;
        }
        bytes
    }

    /// Writes `bytes` to the memory of a chain, from its start.
    ///
    /// # Panics
    /// A page is outside memory.
    pub fn write_mdl(&self, mdl: &Mdl, bytes: &[u8]) {
        let mut rest = bytes;
        for (address, len) in spans(mdl) {
            let (now, later) = rest.split_at(len.min(rest.len()));
            self.ram
                .memory()
                .write_slice(now, address)
                .expect("the pages of an MDL are guest memory");
            rest = later;
        }
    }
}

/// Returns the bytes of a chain, page by page.
fn spans(mdl: &Mdl) -> impl Iterator<Item = (GuestAddress, usize)> + '_ {
    mdl.pieces().flat_map(|piece| {
        let mut left = piece.byte_count() as usize;
        let mut offset = piece.byte_offset() as usize;
        piece.pages().iter().map(move |page| {
            let len = left.min(PAGE_SIZE - offset);
            let address = GuestAddress(page * PAGE + offset as u64);
            left -= len;
            offset = 0;
            (address, len)
        })
    })
}

impl State {
    fn contiguous(&mut self, count: usize) -> Option<Vec<u64>> {
        for region in &mut self.free {
            let mut run = 0;
            for index in 0..region.taken.len() {
                run = if region.taken[index] { 0 } else { run + 1 };
                if run == count {
                    return Some(
                        (index + 1 - count..=index).map(|index| region.take(index)).collect(),
                    );
                }
            }
        }
        (count == 0).then(Vec::new)
    }

    /// Allocates runs of `len` pages at random positions, none of them directly after the one
    /// before. The last run may be shorter.
    fn runs(&mut self, count: usize, len: usize) -> Option<Vec<u64>> {
        let mut pages: Vec<u64> = Vec::with_capacity(count);
        while pages.len() < count {
            let want = len.min(count - pages.len());
            match self.random_run(want, pages.last().copied()) {
                Some(run) => pages.extend(run),
                None => {
                    for &page in &pages {
                        if let Some(region) = self.free.iter_mut().find(|region| region.holds(page))
                        {
                            region.taken[(page - region.first) as usize] = false;
                            region.free += 1;
                        }
                    }
                    return None;
                }
            }
        }
        Some(pages)
    }

    /// Allocates `len` neighbouring free pages at a random position that is not directly after
    /// `before`.
    fn random_run(&mut self, len: usize, before: Option<u64>) -> Option<Vec<u64>> {
        let total: usize = self.free.iter().map(|region| region.taken.len()).sum();
        if total == 0 {
            return None;
        }
        // xorshift: the numbers only have to be spread and repeatable.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let start = (self.random % total as u64) as usize;
        for position in (start..total).chain(0..start) {
            let mut index = position;
            let region = self.free.iter_mut().find(|region| {
                let here = index < region.taken.len();
                if !here {
                    index -= region.taken.len();
                }
                here
            })?;
            let first = region.first + index as u64;
            let is_free =
                region.taken.get(index..index + len).is_some_and(|run| !run.contains(&true));
            if is_free && before.is_none_or(|page| page + 1 != first) {
                return Some((index..index + len).map(|index| region.take(index)).collect());
            }
        }
        None
    }
}

impl Region {
    fn holds(&self, page: u64) -> bool {
        page.checked_sub(self.first).is_some_and(|index| index < self.taken.len() as u64)
    }

    fn take(&mut self, index: usize) -> u64 {
        self.taken[index] = true;
        self.free -= 1;
        self.first + index as u64
    }
}

fn memfd(bytes: usize) -> io::Result<File> {
    // SAFETY: the name is a C string; the call accesses no other memory.
    let fd = unsafe { libc::memfd_create(c"loopback-ram".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor without another owner.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(bytes as u64)?;
    Ok(file)
}
