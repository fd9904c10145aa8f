//! A ring in memory of its own, with access to its bytes for the peer. It is created once and used
//! by every input.

use vm_memory::{GuestAddress, GuestMemoryBackend};
use vmbus_ring::{Mode, PlainMemory, RingMemory};

use crate::page_list::PAGE;

/// Byte offsets in the control page.
pub(crate) const WRITE_INDEX: usize = 0;
pub(crate) const READ_INDEX: usize = 4;
pub(crate) const MASK: usize = 8;
pub(crate) const PENDING: usize = 12;
pub(crate) const FEATURES: usize = 64;

/// The content of pages that belong to no ring.
const CANARY: u64 = 0xC5C5_C5C5_C5C5_C5C5;

pub(crate) struct Twin {
    pub(crate) map: RingMemory,
    /// Host address of the control page and of each data page.
    pages: Vec<*mut u8>,
    /// Host addresses of the other pages.
    others: Vec<*mut u8>,
    /// Keeps the pages mapped at these addresses.
    _memory: PlainMemory,
}

impl Twin {
    /// Returns the ring in guest pages `pages`, the first one its control page.
    pub(crate) fn new(pages: &[u64], mode: Mode) -> Self {
        let count = pages.iter().max().expect("a ring has pages") + 2;
        let memory = PlainMemory::new(count as usize).expect("memory for a ring");
        let map = memory.ring(pages, mode).expect("a ring");
        assert_eq!(map.mode(), mode);
        let host = |page: u64| {
            memory
                .ram()
                .memory()
                .get_host_address(GuestAddress(page * PAGE as u64))
                .expect("a page of it")
        };
        let others: Vec<_> = (0..count).filter(|page| !pages.contains(page)).map(host).collect();
        for page in &others {
            // SAFETY: a whole, aligned page of memory that no other code uses.
            unsafe { std::slice::from_raw_parts_mut(page.cast::<u64>(), PAGE / 8) }.fill(CANARY);
        }
        Self { map, pages: pages.iter().map(|page| host(*page)).collect(), others, _memory: memory }
    }

    pub(crate) fn data_size(&self) -> u32 {
        self.map.data_size()
    }

    /// Empties the control page and sets the indices (modulo the data size). Both ends can signal
    /// space.
    pub(crate) fn start(&self, read: u32, write: u32) {
        // SAFETY: the control page is a whole page that only this thread uses.
        unsafe { self.pages[0].write_bytes(0, PAGE) };
        self.set_field(READ_INDEX, read % self.data_size());
        self.set_field(WRITE_INDEX, write % self.data_size());
        self.set_field(FEATURES, 1);
    }

    pub(crate) fn field(&self, field: usize) -> u32 {
        // SAFETY: fields are aligned words of the control page, which only this thread uses.
        unsafe { self.pages[0].add(field).cast::<u32>().read() }
    }

    pub(crate) fn set_field(&self, field: usize, value: u32) {
        // SAFETY: as in `field`.
        unsafe { self.pages[0].add(field).cast::<u32>().write(value) }
    }

    /// Copies `bytes` to the data at `at`, around the end.
    pub(crate) fn write(&self, at: u32, bytes: &[u8]) {
        let (mut at, mut rest) = (at as usize, bytes);
        while !rest.is_empty() {
            let (now, later) = rest.split_at((PAGE - at % PAGE).min(rest.len()));
            // SAFETY: `now` ends with the page at the latest; only this thread uses the page.
            unsafe { self.pages[1 + at / PAGE].add(at % PAGE).copy_from(now.as_ptr(), now.len()) };
            at = (at + now.len()) % self.data_size() as usize;
            rest = later;
        }
    }

    /// Returns page `index` of the data.
    pub(crate) fn page(&self, index: usize) -> &[u8] {
        // SAFETY: a whole page; only this thread uses it, and not while the slice exists.
        unsafe { std::slice::from_raw_parts(self.pages[1 + index], PAGE) }
    }

    /// Checks that no byte outside the ring was written. It reads the edges of the other pages,
    /// which an overrun would hit.
    pub(crate) fn check_others(&self) {
        for page in &self.others {
            for at in [0, PAGE - 8] {
                // SAFETY: an aligned word inside the page, which only this thread uses.
                assert_eq!(
                    unsafe { page.add(at).cast::<u64>().read() },
                    CANARY,
                    "a page that is not the ring's"
                );
            }
        }
    }
}
