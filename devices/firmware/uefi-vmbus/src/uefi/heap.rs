//! The driver's memory: one area, allocated when the driver starts. Allocations from it do not
//! change the firmware's memory map, so they are possible while the system takes over.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;
use vmbus_protocol::limits::PAGE_SIZE;

use super::boot::BootServices;

/// Pages of the area. A request of [`uefi_vmbus::MAX_TRANSFER`] bytes has a page list of 16 KiB,
/// which exists up to five times; a scan has less.
const PAGES: usize = 256;

#[global_allocator]
static HEAP: DriverHeap = DriverHeap(UnsafeCell::new(Heap::empty()));

struct DriverHeap(UnsafeCell<Heap>);

// SAFETY: UEFI runs drivers on one processor, and the driver's entry points raise the priority, so
// that none interrupts another. The interrupt handler does not allocate.
unsafe impl Sync for DriverHeap {}

/// Allocates the area. Returns false if the firmware has no memory. Must be called once, first.
pub(super) fn start(boot: BootServices) -> bool {
    let Some(area) = boot.allocate_data(PAGES) else { return false };
    // SAFETY: no other code uses the heap now, see `Sync`.
    let heap = unsafe { &mut *HEAP.0.get() };
    // SAFETY: the area is the driver's own, and stays so for as long as it runs.
    unsafe { heap.init(area.as_ptr(), PAGES * PAGE_SIZE) };
    true
}

// SAFETY: `Heap` returns separate blocks of the area with the layout.
unsafe impl GlobalAlloc for DriverHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: no other code uses the heap now, see `Sync`.
        let heap = unsafe { &mut *self.0.get() };
        heap.allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        let heap = unsafe { &mut *self.0.get() };
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller guarantees that `alloc` returned the block for this layout.
            unsafe { heap.deallocate(block, layout) };
        }
    }
}
