//! Checks of zeroes, discards and allocated extents.

use std::sync::Arc;

use super::super::{Backend, Operation};
use super::drive::{one, over, pattern};
use super::{CAPACITY, WRITE};

/// Ranges that neither begin nor end at a granule, within one block and over many.
const STRETCHES: [(u64, u64); 5] = [
    (512, 512),
    (3 * 512, 40 * 512),
    (65536, 65536),
    (1 << 20, (1 << 20) + 512),
    ((3 << 20) - 512, (2 << 20) + 1024),
];

pub(super) fn check(backend: &Arc<dyn Backend>) {
    zeroes_replace_what_was_written(backend);
    discarded_bytes_are_gone_and_no_others(backend);
    extents_cover_the_medium_and_never_hide_data(backend);
}

fn zeroes_replace_what_was_written(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    for (unmap, (offset, length)) in
        [false, true].into_iter().flat_map(|unmap| STRETCHES.map(|at| (unmap, at)))
    {
        let mut expected = pattern(offset, length as usize + 1024);
        one(&mut *queue, WRITE, offset - 512, expected.clone()).unwrap();
        assert_eq!(over(&mut *queue, Operation::WriteZeroes { unmap }, offset, length), Ok(()));
        expected[512..512 + length as usize].fill(0);
        let seen =
            one(&mut *queue, Operation::Read, offset - 512, vec![1; expected.len()]).unwrap();
        assert!(seen == expected, "zeroes at {offset} + {length}, unmap {unmap}");
        one(&mut *queue, Operation::Flush, 0, vec![]).unwrap();
    }
}

fn discarded_bytes_are_gone_and_no_others(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    let discard = backend.geometry().discard;
    let zeroes = discard.is_some_and(|discard| discard.zeroes);
    if let Some(discard) = discard {
        assert!(discard.granularity.is_power_of_two() && discard.granularity >= 512);
    }
    for (offset, length) in STRETCHES {
        let mut expected = pattern(offset + 1, length as usize + 1024);
        one(&mut *queue, WRITE, offset - 512, expected.clone()).unwrap();
        assert_eq!(over(&mut *queue, Operation::Discard, offset, length), Ok(()));
        let mut seen =
            one(&mut *queue, Operation::Read, offset - 512, vec![1; expected.len()]).unwrap();
        expected[512..512 + length as usize].fill(0);
        if !zeroes {
            seen[512..512 + length as usize].fill(0);
        }
        assert!(seen == expected, "discard of {length} bytes at {offset}");
    }
    assert_eq!(over(&mut *queue, Operation::Discard, 0, CAPACITY), Ok(()));
    if zeroes {
        let seen = one(&mut *queue, Operation::Read, 0, vec![1; CAPACITY as usize]).unwrap();
        assert!(seen.iter().all(|&byte| byte == 0), "all of it is discarded");
    }
    assert_eq!(over(&mut *queue, Operation::WriteZeroes { unmap: true }, 0, CAPACITY), Ok(()));
}

/// The backend must be all zero at this point.
fn extents_cover_the_medium_and_never_hide_data(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    let places = [1 << 20, (5 << 20) + 512, CAPACITY - 512];
    for offset in places {
        one(&mut *queue, WRITE, offset, vec![0xE7; 512]).unwrap();
    }
    let mut at = 0;
    let mut steps = 0;
    while at < CAPACITY {
        let extent = backend.extent(at).unwrap();
        assert!(extent.length > 0, "an extent at {at} that goes nowhere");
        assert!(extent.length <= CAPACITY - at, "an extent past the end");
        if !extent.mapped {
            let hidden = places.iter().find(|&&place| (at..at + extent.length).contains(&place));
            assert_eq!(hidden, None, "data where no room is taken up");
            let seen =
                one(&mut *queue, Operation::Read, at, vec![1; extent.length as usize / 512 * 512]);
            assert!(seen.unwrap().iter().all(|&byte| byte == 0), "what takes up no room is zero");
        }
        at += extent.length;
        steps += 1;
        assert!(steps <= CAPACITY / 512, "extents as small as bytes");
    }
    assert_eq!(backend.extent(CAPACITY).map(|extent| extent.length), Ok(0), "past the end");
    for offset in places {
        assert_eq!(one(&mut *queue, Operation::Read, offset, vec![0; 512]), Ok(vec![0xE7; 512]));
    }
}
