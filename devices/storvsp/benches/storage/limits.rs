//! The lower bound of a request's cost on this machine: one copy of the payload, and one message
//! through memory each way.

use std::hint::black_box;

use crate::clock::best_of;
use crate::direction::Direction;
use crate::machine::{BYTES, PLACES};

/// Bytes of a request's packet: descriptor, one range of one page, the packet itself, trailer.
const REQUEST: usize = 16 + 8 + 16 + 64 + 8;
/// Bytes of a completion's packet: descriptor, the packet itself, trailer.
const COMPLETION: usize = 16 + 64 + 8;

/// Returns the nanoseconds of one request's copies.
pub(crate) fn request(direction: Direction) -> f64 {
    payload(direction) + message::<REQUEST>() + message::<COMPLETION>()
}

/// Returns the nanoseconds of copying one page, cycling through two buffers.
fn payload(direction: Direction) -> f64 {
    // Two buffers, as guest memory and a RAM disk are.
    let (mut guest, mut disk) = (vec![1_u8; PLACES * BYTES], vec![2_u8; PLACES * BYTES]);
    let mut place = 0;
    best_of(|| {
        let at = place % PLACES * BYTES;
        place += 1;
        let (from, to) = match direction {
            Direction::Read => (&disk[at..at + BYTES], &mut guest[at..at + BYTES]),
            Direction::Write => (&guest[at..at + BYTES], &mut disk[at..at + BYTES]),
        };
        copy(from, to);
    })
}

/// Makes the one unavoidable copy. `instructions` also counts it alone.
#[inline(never)]
pub(crate) fn copy(from: &[u8], to: &mut [u8]) {
    to.copy_from_slice(black_box(from));
    black_box(to);
}

/// Returns the nanoseconds of writing and reading `N` bytes through a ring.
fn message<const N: usize>() -> f64 {
    const AREA: usize = 32 * 4096;
    let mut area = vec![0_u8; AREA];
    let (from, mut to) = ([1_u8; N], [0_u8; N]);
    let mut at = 0;
    best_of(|| {
        let place = &mut area[at..at + N];
        place.copy_from_slice(black_box(&from));
        to.copy_from_slice(black_box(place));
        black_box(&mut to);
        at = if at + 2 * N <= AREA { at + N } else { 0 };
    })
}
