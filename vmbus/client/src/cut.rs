//! Splits MDL chains into portions that fit on the wire.

use alloc::vec::Vec;

use crate::error::GpadlError;
use crate::handles::MAX_WORDS;
use crate::mdl::{Mdl, Range};

/// Returns the selected part of a chain.
pub(crate) fn clip(mdl: &Mdl, offset: u64, length: u64) -> Result<Vec<Range<'_>>, GpadlError> {
    let total = mdl.total_bytes();
    let rest = total.checked_sub(offset).ok_or(GpadlError::Offset { offset, total })?;
    if length > rest {
        return Err(GpadlError::Length { offset, length, total });
    }
    if rest == 0 {
        return Err(GpadlError::Empty);
    }
    Ok(mdl.ranges(offset, if length == 0 { rest } else { length }))
}

/// Splits the ranges into portions of one GPADL each.
pub(crate) fn split<'a>(ranges: &[Range<'a>]) -> Vec<Vec<Range<'a>>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut room = MAX_WORDS;
    for range in ranges {
        let mut range = *range;
        loop {
            if range.pages.len() < room {
                room -= range.pages.len() + 1;
                part.push(range);
                break;
            }
            // A range takes one word for its header and one for at least one page.
            if room >= 2 {
                let (now, later) = range.split(room - 1);
                part.push(now);
                range = later;
            }
            parts.push(core::mem::take(&mut part));
            room = MAX_WORDS;
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn bytes(ranges: &[Range<'_>]) -> Vec<u64> {
        // Every byte by its guest address, which no split may change.
        ranges
            .iter()
            .flat_map(|range| {
                let first = u64::from(range.byte_offset);
                (first..first + u64::from(range.byte_count))
                    .map(|at| range.pages[(at / 4096) as usize] * 4096 + at % 4096)
            })
            .collect()
    }

    fn chain() -> Mdl {
        let first = Mdl::new(5000, 4000, vec![7, 3, 9]).unwrap();
        let empty = Mdl::new(0, 12, vec![]).unwrap();
        let last = Mdl::new(4096, 1, vec![3, 4]).unwrap();
        first.chain(empty).chain(last)
    }

    #[test]
    fn test_clip_any_offset_and_length_names_the_same_bytes_as_the_concatenation() {
        let chain = chain();
        let all = bytes(&chain.ranges(0, chain.total_bytes()));
        assert_eq!(all.len(), 9096);
        for offset in [0, 1, 95, 96, 97, 4191, 4192, 4193, 4999, 5000, 5001, 9094, 9095] {
            for length in [1, 2, 96, 4096, 5000, 9096 - offset] {
                let Ok(end) = usize::try_from(offset + length) else { continue };
                if end > all.len() || length == 0 {
                    continue;
                }
                let ranges = clip(&chain, offset, length).unwrap();
                assert_eq!(bytes(&ranges), all[offset as usize..end], "{offset} {length}");
                for range in &ranges {
                    assert_eq!(
                        range.pages.len(),
                        crate::mdl::pages_of(range.byte_offset, range.byte_count)
                    );
                }
            }
            assert_eq!(bytes(&clip(&chain, offset, 0).unwrap()), all[offset as usize..]);
        }
    }

    #[test]
    fn test_clip_outside_the_chain_is_refused_with_its_own_error() {
        let (chain, total) = (chain(), 9096);
        assert_eq!(clip(&chain, 9097, 0).unwrap_err(), GpadlError::Offset { offset: 9097, total });
        assert_eq!(
            clip(&chain, u64::MAX, 1).unwrap_err(),
            GpadlError::Offset { offset: u64::MAX, total }
        );
        assert_eq!(
            clip(&chain, 0, 9097).unwrap_err(),
            GpadlError::Length { offset: 0, length: 9097, total }
        );
        let length = u64::MAX;
        assert_eq!(
            clip(&chain, 1, length).unwrap_err(),
            GpadlError::Length { offset: 1, length, total }
        );
        assert_eq!(clip(&chain, 9096, 0).unwrap_err(), GpadlError::Empty);
        assert_eq!(clip(&Mdl::new(0, 0, vec![]).unwrap(), 0, 0).unwrap_err(), GpadlError::Empty);
    }

    #[test]
    fn test_split_keeps_all_bytes_and_never_exceeds_the_wire() {
        let many = vec![1; 5000];
        for counts in [
            &[8190][..],
            &[8191],
            &[8189, 1],
            &[8188, 1, 1],
            &[8190, 8190, 3],
            &many,
            &[20_000_usize],
        ] {
            let pages: Vec<Vec<u64>> = counts
                .iter()
                .enumerate()
                .map(|(piece, &count)| {
                    (0..count as u64).map(|page| page * 3 + piece as u64).collect()
                })
                .collect();
            let ranges: Vec<_> = pages
                .iter()
                .map(|pages| Range {
                    byte_count: (pages.len() * 4096 - 700) as u32,
                    byte_offset: 600,
                    pages,
                })
                .collect();
            let parts = split(&ranges);
            let mut whole = Vec::new();
            for part in &parts {
                let words: usize = part.iter().map(|range| range.pages.len() + 1).sum();
                assert!(words <= MAX_WORDS && !part.is_empty());
                for range in part {
                    assert_eq!(
                        range.pages.len(),
                        crate::mdl::pages_of(range.byte_offset, range.byte_count)
                    );
                    whole.extend(range.pages.iter().copied());
                }
            }
            assert_eq!(whole, pages.concat(), "{counts:?}");
            let count = |ranges: &[Range<'_>]| -> u64 {
                ranges.iter().map(|range| u64::from(range.byte_count)).sum()
            };
            assert_eq!(parts.iter().map(|part| count(part)).sum::<u64>(), count(&ranges));
            let words: usize = counts.iter().map(|count| count + 1).sum();
            assert_eq!(parts.len() == 1, words <= MAX_WORDS, "{counts:?}");
        }
    }
}
