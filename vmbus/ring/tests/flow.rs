//! Full rings: the wait for space and the wake-up of the waiting end (vmbus-core 7.3; checklist 66
//! to 69).

mod common;

use common::{
    BOTH_MODES, FEATURES, MASK, PENDING, READ_INDEX, TestRing, WRITE_INDEX, drain, ring, write_one,
};
use vm_memory::{Bytes, GuestAddress};
use vmbus_ring::{Incoming, Outgoing, SpaceWait, WriteError};

/// Fills the ring with packets of 64 bytes of payload (88 in all). Returns their number.
fn fill(ring: &mut TestRing) -> u64 {
    let mut count = 0;
    loop {
        match write_one(&mut ring.outgoing, count, &[1; 64]) {
            Ok(_) => count += 1,
            Err(WriteError::Full { needed: 88 }) => return count,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads one packet. Returns true when the producer must be signalled.
fn read_one(incoming: &mut Incoming) -> bool {
    let mut batch = incoming.batch().unwrap();
    batch.next().unwrap().unwrap();
    batch.commit()
}

/// Checklist 66, with this crate's consumer at the other end.
#[test]
fn test_ring_blocked_producer_is_woken_once_when_its_packet_fits() {
    for mode in BOTH_MODES {
        for needed_payload in [0_u32, 8, 64, 500, 1000, 4000, 4064] {
            let needed = needed_payload + 24;
            let mut ring = ring(1, mode);
            let count = fill(&mut ring);
            let wait = ring.outgoing.wait_for_space(needed).unwrap();
            if wait == SpaceWait::Ready {
                assert!(ring.outgoing.free().unwrap() > needed);
                assert_eq!(ring.field(PENDING), 0, "nothing is left behind");
                continue;
            }
            assert_eq!(wait, SpaceWait::Signalled);
            assert!(ring.outgoing.is_waiting());
            let mut fits = false;
            let mut signals = 0;
            for _ in 0..count {
                let signal = read_one(&mut ring.incoming);
                signals += u32::from(signal);
                let fits_now = ring.outgoing.free().unwrap() > needed;
                assert!(signal || fits_now == fits, "crossing without a signal, {needed} needed");
                fits = fits_now;
            }
            assert!(fits && (1..=2).contains(&signals), "{signals} signals for {needed}");
            ring.outgoing.space_came();
            assert_eq!(ring.field(PENDING), 0);
            write_one(&mut ring.outgoing, 1, &vec![0; needed_payload as usize]).unwrap();
        }
    }
}

/// Checklist 66, with the strict rule of a Linux consumer: signal if and only if free_now > pending
/// and free_before <= pending.
#[test]
fn test_ring_pending_size_wakes_a_strict_peer_exactly_at_the_crossing() {
    for mode in BOTH_MODES {
        for needed in (24..=4088).step_by(8) {
            let mut ring = ring(1, mode);
            let count = fill(&mut ring);
            if ring.outgoing.wait_for_space(needed).unwrap() == SpaceWait::Ready {
                continue;
            }
            let pending = ring.field(PENDING);
            let mut signals = 0;
            for _ in 0..count {
                let before = ring.outgoing.free().unwrap();
                let _ = read_one(&mut ring.incoming);
                let now = ring.outgoing.free().unwrap();
                let signal = now > pending && before <= pending;
                assert_eq!(signal, now > needed && before <= needed);
                signals += u32::from(signal);
            }
            assert_eq!(signals, 1, "{needed} needed, pending {pending}");
        }
    }
}

#[test]
fn test_ring_wait_for_more_than_the_ring_waits_for_an_empty_one() {
    for mode in BOTH_MODES {
        for needed in [4089, 5000, u32::MAX] {
            let mut ring = ring(1, mode);
            assert_eq!(ring.outgoing.wait_for_space(needed), Ok(SpaceWait::Ready));
            fill(&mut ring);
            assert_eq!(ring.outgoing.wait_for_space(needed), Ok(SpaceWait::Signalled));
            assert!(drain(&mut ring.incoming).unwrap().1);
            assert_eq!(ring.outgoing.wait_for_space(needed), Ok(SpaceWait::Ready));
        }
    }
}

/// Checklist 67.
#[test]
fn test_ring_constant_pending_size_signals_at_each_crossing_and_not_at_each_read() {
    for mode in BOTH_MODES {
        let mut ring = ring(4, mode);
        ring.set_field(PENDING, 4120);
        for round in 0..5 {
            let count = fill(&mut ring);
            let signals: u32 = (0..count).map(|_| u32::from(read_one(&mut ring.incoming))).sum();
            assert_eq!(signals, 1, "round {round}: one for each time that the ring was full");
        }
        // The threshold is never crossed, so there is never a signal.
        for _ in 0..10 {
            write_one(&mut ring.outgoing, 1, &[1; 64]).unwrap();
            assert!(!read_one(&mut ring.incoming));
        }
        assert_eq!(ring.field(PENDING), 4120, "the producer's field is the producer's");
    }
}

/// Checklist 67: the mask affects signals for packets, not those for space.
#[test]
fn test_ring_space_signal_ignores_the_interrupt_mask() {
    for mode in BOTH_MODES {
        let mut ring = ring(1, mode);
        fill(&mut ring);
        ring.set_field(PENDING, 2000);
        ring.set_field(MASK, 1);
        assert!(drain(&mut ring.incoming).unwrap().1);
    }
}

/// Checklist 68.
#[test]
fn test_ring_garbage_pending_size_is_clamped_and_harmless() {
    for mode in BOTH_MODES {
        for pending in [1, 7, 9, 4095, 4096, 4097, 0x7FFF_FFFF, 0x8000_0001, u32::MAX - 7, u32::MAX]
        {
            let mut ring = ring(1, mode);
            fill(&mut ring);
            ring.set_field(PENDING, pending);
            let signal = drain(&mut ring.incoming).unwrap().1;
            // A request that an empty ring cannot satisfy counts as a request for an empty ring;
            // one that is always satisfied needs no signal.
            assert_eq!(
                signal,
                pending >= 4096 - 8 || pending == 9 && ring.data_size() < 4096,
                "{pending:#x}"
            );
        }
    }
}

/// The wait of a guest that wrote further packets after the batch was sampled. With the old write
/// index its signal would be lost.
#[test]
fn test_ring_producer_that_filled_up_after_the_batch_was_sampled_is_woken() {
    for mode in BOTH_MODES {
        let mut ring = ring(1, mode);
        for _ in 0..10 {
            write_one(&mut ring.outgoing, 1, &[1; 64]).unwrap();
        }
        let mut batch = ring.incoming.batch().unwrap();
        while let Ok(_) | Err(WriteError::Corrupt(_)) = write_one(&mut ring.outgoing, 2, &[1; 64]) {
        }
        assert_eq!(ring.outgoing.wait_for_space(88), Ok(SpaceWait::Signalled));
        while batch.next().unwrap().is_some() {}
        assert!(batch.commit());
    }
}

#[test]
fn test_ring_write_index_broken_during_a_space_wait_is_reported_by_the_next_batch() {
    for mode in BOTH_MODES {
        let mut ring = ring(1, mode);
        fill(&mut ring);
        ring.set_field(PENDING, 88);
        let mut batch = ring.incoming.batch().unwrap();
        batch.next().unwrap().unwrap();
        let at = GuestAddress(ring.pages[0] * 4096 + WRITE_INDEX);
        ring.memory.ram().memory().write_obj(3_u32, at).unwrap();
        assert!(!batch.commit());
        assert!(ring.incoming.batch().is_err());
    }
}

/// Checklist 69.
#[test]
fn test_ring_peer_without_feature_bit_must_be_polled_and_is_never_asked() {
    for mode in BOTH_MODES {
        let ring = ring(1, mode);
        let map = || ring.memory.ring(&ring.pages, mode).unwrap();
        ring.set_field(FEATURES, 0);
        let mut outgoing = Outgoing::new(map()).unwrap();
        ring.set_field(FEATURES, 0);
        let mut incoming = Incoming::new(map()).unwrap();
        while write_one(&mut outgoing, 1, &[1; 64]).is_ok() {}
        assert_eq!(outgoing.wait_for_space(88), Ok(SpaceWait::Poll));
        assert_eq!(ring.field(PENDING), 0);
        ring.set_field(PENDING, 88);
        assert!(
            !drain(&mut incoming).unwrap().1,
            "a peer that does not know the field does not wait by it"
        );
        assert_ne!(ring.field(READ_INDEX), 0);
        assert_eq!(outgoing.wait_for_space(88), Ok(SpaceWait::Ready));
    }
}
