//! Guest memory for tests.

use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmbus_gpadl::{GuestRam, RangeAssembler};

use crate::backend::IoBuffer;

/// Guest RAM of `size` bytes from address 0 on.
pub(crate) fn guest_ram(size: usize) -> GuestRam {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).unwrap();
    GuestRam::new(memory).unwrap()
}

/// A buffer of one range: `len` bytes from `offset` into the first of `pages`.
pub(crate) fn guest_buffer(ram: &GuestRam, offset: u32, len: u32, pages: &[u64]) -> IoBuffer {
    let mut buffer = IoBuffer::new(ram.clone());
    let mut list = Vec::new();
    list.extend_from_slice(&len.to_le_bytes());
    list.extend_from_slice(&offset.to_le_bytes());
    list.extend(pages.iter().flat_map(|page| page.to_le_bytes()));
    let mut assembler = RangeAssembler::begin(1, list.len()).unwrap();
    assert!(assembler.push(buffer.guest_mut().unwrap(), &list).unwrap());
    buffer
}
