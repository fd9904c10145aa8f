//! Bytes that can be reproduced from a seed and an offset: written in a guest and checked in the
//! image file, or the other way round.

/// Returns one 64-bit word of a well-mixed sequence (the SplitMix64 finalizer).
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Fills a buffer with the pattern's bytes, starting with byte `offset`. Each byte depends only on
/// the seed and its own offset, so pieces of any size and order form the same whole.
pub fn fill(buffer: &mut [u8], seed: u64, offset: u64) {
    let base = mix(seed);
    let word = |number: u64| mix(base ^ number).to_le_bytes();
    let skip = (offset % 8) as usize;
    let first = buffer.len().min((8 - skip) % 8);
    let (first, rest) = buffer.split_at_mut(first);
    first.copy_from_slice(&word(offset / 8)[skip..][..first.len()]);
    // A length that the compiler knows: streams of gigabytes are checked in emulated machines.
    let mut pieces = rest.chunks_exact_mut(8);
    let mut number = offset.div_ceil(8);
    for piece in &mut pieces {
        piece.copy_from_slice(&word(number));
        number += 1;
    }
    let last = pieces.into_remainder();
    last.copy_from_slice(&word(number)[..last.len()]);
}

/// Returns the offset of the first byte that differs from the pattern; `None` if all match.
pub fn first_difference(buffer: &[u8], seed: u64, offset: u64) -> Option<u64> {
    let mut expected = [0_u8; 4096];
    let mut at = offset;
    for piece in buffer.chunks(expected.len()) {
        let expected = &mut expected[..piece.len()];
        fill(expected, seed, at);
        if expected != piece {
            let differs = piece.iter().zip(expected.iter()).position(|(a, b)| a != b).unwrap_or(0);
            return Some(at + differs as u64);
        }
        at += piece.len() as u64;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_fill_in_pieces_makes_the_same_bytes_as_in_one_piece() {
        let mut whole = vec![0; 1000];
        fill(&mut whole, 7, 3);
        for size in [1, 5, 8, 13, 512] {
            let mut pieces = vec![0; 1000];
            for (n, piece) in pieces.chunks_mut(size).enumerate() {
                fill(piece, 7, 3 + (n * size) as u64);
            }
            assert_eq!(pieces, whole, "{size}");
        }
    }

    #[test]
    fn test_fill_with_another_seed_or_place_differs() {
        let make = |seed, offset| {
            let mut bytes = [0; 64];
            fill(&mut bytes, seed, offset);
            bytes
        };
        assert_ne!(make(1, 0), make(2, 0));
        assert_ne!(make(1, 0), make(1, 8));
        assert_ne!(make(0, 0), [0; 64]);
    }

    #[test]
    fn test_first_difference_names_the_changed_byte() {
        let mut bytes = vec![0; 9000];
        fill(&mut bytes, 1, 100);
        assert_eq!(first_difference(&bytes, 1, 100), None);
        bytes[8191] ^= 1;
        assert_eq!(first_difference(&bytes, 1, 100), Some(100 + 8191));
    }
}
