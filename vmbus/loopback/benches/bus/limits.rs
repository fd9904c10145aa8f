//! The physical limits of the machine.

use std::hint::black_box;

use crate::clock::best_of;

/// Bytes of a ring's data that payloads pass: 15 pages.
const AREA: usize = 15 * 4096;

/// Returns the nanoseconds of copying a page list.
pub(crate) fn list_copy(list: &[u64]) -> f64 {
    let mut copy = vec![0_u64; list.len()];
    best_of(|| {
        copy.copy_from_slice(black_box(list));
        black_box(&mut copy);
    })
}

/// Returns the nanoseconds of converting a page list to a table of addresses: one region, without
/// checks.
pub(crate) fn address_table(list: &[u64]) -> f64 {
    let mut table = vec![0_u64; list.len()];
    best_of(|| {
        for (to, from) in table.iter_mut().zip(black_box(list)) {
            *to = 0x7F00_0000_0000 + (from << 12);
        }
        black_box(&mut table);
    })
}

/// Returns the nanoseconds of looking up the address of a random byte in such a table.
pub(crate) fn table_look_up(list: &[u64], offsets: &[usize]) -> f64 {
    let mut next = offsets.iter().cycle();
    best_of(|| {
        let offset = next.next().copied().unwrap_or_default();
        black_box(list.get(offset >> 12).map(|page| (page << 12) + (offset as u64 & 0xFFF)));
    })
}

/// Returns the nanoseconds of copying `size` bytes to a moving offset, like a ring's writer, and
/// with `out` also from there, like a reader.
pub(crate) fn payload_copy(size: usize, out: bool) -> f64 {
    let mut area = vec![0_u8; AREA.max(2 * size)];
    let (from, mut to) = (vec![1_u8; size], vec![0_u8; size]);
    let mut at = 0;
    best_of(|| {
        let place = &mut area[at..at + size];
        place.copy_from_slice(black_box(&from));
        if out {
            to.copy_from_slice(black_box(place));
            black_box(&mut to);
        }
        black_box(place);
        // A descriptor and a trailer are between two packets.
        at = if at + 2 * size + 48 <= area.len() { at + size + 24 } else { 0 };
    })
}

/// Returns the nanoseconds of allocating and freeing a heap block of `size` bytes.
pub(crate) fn heap_block(size: usize) -> f64 {
    best_of(|| {
        black_box(Vec::<u8>::with_capacity(black_box(size)));
    })
}
