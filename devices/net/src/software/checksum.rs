//! Internet checksums (RFC 1071).

use super::Malformed;

/// Fills in the checksum at `start` + `offset` of a frame, over all bytes from `start` on. Its
/// field holds the sum of the pseudo-header before. A result of 0 becomes 0xffff, as UDP needs.
///
/// # Errors
/// The field is not in the frame, which is unchanged.
pub fn fill(frame: &mut [u8], start: usize, offset: usize) -> Result<(), Malformed> {
    let covered = frame.get_mut(start..).ok_or(Malformed)?;
    let sum = sum(0, covered);
    let field = covered.get_mut(offset..).and_then(<[u8]>::first_chunk_mut);
    *field.ok_or(Malformed)? = nonzero(finish(sum)).to_be_bytes();
    Ok(())
}

/// Adds big-endian words to a sum; an odd byte at the end counts as the high half of a word.
pub fn sum(start: u64, bytes: &[u8]) -> u64 {
    let (chunks, rest) = bytes.as_chunks::<4>();
    let mut sum = start;
    for chunk in chunks {
        // 2^32 chunks fit the sum; no frame has as many.
        sum = sum.wrapping_add(u64::from(u32::from_be_bytes(*chunk)));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum.wrapping_add(u64::from(u32::from_be_bytes(last)))
}

/// Folds a sum to 16 bits and complements it.
pub fn finish(sum: u64) -> u16 {
    let mut folded = sum;
    while folded > 0xffff {
        folded = (folded >> 16) + (folded & 0xffff);
    }
    !(folded as u16)
}

/// Returns a checksum that does not mean "none" in UDP; it is equal in one's complement.
pub(super) fn nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_sum_of_the_rfcs_example_is_the_rfcs() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(finish(sum(0, &bytes)), !0xddf2);
        assert_eq!(finish(sum(0, &bytes[..7])), finish(sum(0, &[&bytes[..7], &[0]].concat())));
    }

    #[test]
    fn test_fill_of_a_frame_makes_its_sum_all_ones() {
        for length in 30..70 {
            let mut frame = crate::conformance::frame(length, length as u8);
            fill(&mut frame, 14, 6).unwrap();
            // The old field counted too: a receiver starts from its complement.
            let mut zeroed = crate::conformance::frame(length, length as u8);
            let seed = [zeroed[20], zeroed[21]];
            zeroed[20..22].fill(0);
            let expected = finish(sum(sum(0, &seed), &zeroed[14..]));
            assert_eq!(frame[20..22], nonzero(expected).to_be_bytes());
        }
        assert_eq!(fill(&mut [0; 20], 14, 5), Err(Malformed));
        assert_eq!(fill(&mut [0; 20], 21, 0), Err(Malformed));
        assert_eq!(fill(&mut [0; 20], 14, usize::MAX), Err(Malformed));
    }

    #[test]
    fn test_fill_with_a_result_of_zero_writes_all_ones() {
        let mut frame = [0; 24];
        frame[14..16].fill(0xff);
        fill(&mut frame, 14, 6).unwrap();
        assert_eq!(frame[20..22], [0xff, 0xff]);
    }
}
