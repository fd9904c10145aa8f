//! Counts the heap operations of each thread, for tests of paths that may allocate nothing, or only
//! in proportion to what a guest sent.
//!
//! A test program installs the allocator, and compares counts before and after its work:
//!
//! ```
//! use vmbus_heap::{CountingAllocator, allocations};
//!
//! #[global_allocator]
//! static ALLOCATOR: CountingAllocator = CountingAllocator;
//!
//! let before = allocations();
//! let value = Box::new(1);
//! assert_eq!(allocations() - before, 1);
//! # drop(value);
//! ```
//!
//! Other threads, such as those of the test harness, have counters of their own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

/// Returns the number of blocks that this thread has allocated or resized. 0 without the
/// [`CountingAllocator`].
pub fn allocations() -> u64 {
    ALLOCATIONS.get()
}

/// Returns the bytes that this thread has allocated, minus those that it has freed.
pub fn live_bytes() -> isize {
    LIVE.get()
}

/// The system's allocator, which counts for each thread.
#[derive(Debug)]
pub struct CountingAllocator;

fn count(blocks: u64, bytes: isize) {
    // A thread that ends frees memory after its counters are gone; no test asks then.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get().wrapping_add(blocks)));
    let _ = LIVE.try_with(|live| live.set(live.get().wrapping_add(bytes)));
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size().cast_signed());
        // SAFETY: the caller's contract is this method's own.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size.cast_signed() - layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, -layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[global_allocator]
    static ALLOCATOR: CountingAllocator = CountingAllocator;

    #[test]
    fn test_blocks_are_counted_by_kind_of_operation() {
        let (before, bytes) = (allocations(), live_bytes());
        let mut block: Vec<u8> = Vec::with_capacity(100);
        assert_eq!((allocations() - before, live_bytes() - bytes), (1, 100));
        block.reserve_exact(300);
        assert_eq!((allocations() - before, live_bytes() - bytes), (2, 300));
        drop(block);
        assert_eq!((allocations() - before, live_bytes() - bytes), (2, 0));
        let zeroes = vec![0_u8; 50];
        assert_eq!((allocations() - before, live_bytes() - bytes), (3, 50));
        drop(zeroes);
    }

    #[test]
    fn test_blocks_of_another_thread_are_not_counted() {
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                let block = vec![0_u8; 1 << 20];
                (allocations(), block.len())
            });
            let before = allocations();
            while !other.is_finished() {
                thread::yield_now();
            }
            assert_eq!(allocations(), before);
            assert!(other.join().unwrap().0 >= 1);
        });
    }
}
