//! The conditions for signals to each end (vmbus-core 7.1 and 7.2; checklist 63 and 65).

mod common;

use common::{BOTH_MODES, FEATURES, MASK, PENDING, drain, ring, write_one};
use vmbus_ring::{Incoming, Mode, OutPacket, Outgoing};

/// Checklist 63.
#[test]
fn test_ring_batch_of_100_to_an_idle_peer_signals_once() {
    for mode in BOTH_MODES {
        let mut ring = ring(2, mode);
        let mut batch = ring.outgoing.batch().unwrap();
        for id in 0..100 {
            batch.write(&OutPacket::in_band(id, &[&[1; 16]])).unwrap();
        }
        assert!(batch.commit(), "the idle peer is woken once");
        for id in 0..10 {
            assert!(!write_one(&mut ring.outgoing, id, &[2; 16]).unwrap(), "it has not read since");
        }
        assert_eq!(drain(&mut ring.incoming).unwrap().0.len(), 110);
        assert!(write_one(&mut ring.outgoing, 1, &[3; 16]).unwrap(), "drained: woken again");
    }
}

/// Checklist 63: the masked part.
#[test]
fn test_ring_masked_peer_is_not_signalled_until_it_unmasks() {
    for mode in BOTH_MODES {
        let mut ring = ring(1, mode);
        ring.incoming.mask();
        for id in 0..3 {
            assert!(!write_one(&mut ring.outgoing, id, &[1; 16]).unwrap());
            assert_eq!(drain(&mut ring.incoming).unwrap().0.len(), 1);
        }
        assert!(!ring.incoming.unmask().unwrap(), "nothing waits");
        assert!(write_one(&mut ring.outgoing, 9, &[1; 16]).unwrap());
    }
}

/// Checklist 65.
#[test]
fn test_ring_unmask_reports_what_came_while_masked() {
    for mode in BOTH_MODES {
        let mut ring = ring(1, mode);
        ring.incoming.mask();
        assert!(!write_one(&mut ring.outgoing, 1, &[1; 16]).unwrap());
        assert!(ring.incoming.unmask().unwrap(), "no signal will come for it");
        assert_eq!(drain(&mut ring.incoming).unwrap().0.len(), 1);
        assert!(!ring.incoming.unmask().unwrap());
    }
}

/// Checklist 65: reading a part and stopping.
#[test]
fn test_ring_partly_read_is_reported_by_unmask_and_not_signalled() {
    for mode in BOTH_MODES {
        let mut ring = ring(1, mode);
        write_one(&mut ring.outgoing, 1, &[1; 16]).unwrap();
        write_one(&mut ring.outgoing, 2, &[1; 16]).unwrap();
        let mut batch = ring.incoming.batch().unwrap();
        batch.next().unwrap().unwrap();
        assert_eq!(batch.remaining(), 40);
        assert!(!batch.commit());
        assert_eq!(ring.incoming.used(), Ok(40));
        assert!(!write_one(&mut ring.outgoing, 3, &[1; 16]).unwrap(), "not empty: no signal");
        assert!(ring.incoming.unmask().unwrap());
        assert_eq!(drain(&mut ring.incoming).unwrap().0.len(), 2);
    }
}

#[test]
fn test_ring_batch_ends_where_it_was_sampled() {
    for mode in BOTH_MODES {
        let mut ring = ring(1, mode);
        write_one(&mut ring.outgoing, 1, &[1; 16]).unwrap();
        let mut batch = ring.incoming.batch().unwrap();
        write_one(&mut ring.outgoing, 2, &[1; 16]).unwrap();
        assert!(batch.next().unwrap().is_some());
        assert!(batch.next().unwrap().is_none(), "the peer cannot keep a batch going");
        assert!(!batch.commit());
        assert!(ring.incoming.unmask().unwrap());
    }
}

#[test]
fn test_ring_commit_of_nothing_sends_no_signal_and_writes_nothing() {
    for mode in BOTH_MODES {
        let mut ring = ring(1, mode);
        assert!(!ring.outgoing.batch().unwrap().commit());
        assert!(!ring.incoming.batch().unwrap().commit());
        let shown = ring.incoming.indices();
        assert_eq!((shown.write_index, shown.read_index, shown.used), (0, 0, Some(0)));
    }
}

/// vmbus-core 6.1: the host's fields are set at open, for any values from an earlier life of the
/// channel.
#[test]
fn test_ring_open_overwrites_stale_fields_that_each_end_owns() {
    for mode in BOTH_MODES {
        let ring = ring(1, mode);
        let map = || ring.memory.ring(&ring.pages, mode).unwrap();
        for field in [MASK, PENDING] {
            ring.set_field(field, 0xDEAD);
        }
        ring.set_field(FEATURES, 0xF0);
        let _outgoing = Outgoing::new(map()).unwrap();
        assert_eq!(
            (ring.field(PENDING), ring.field(MASK), ring.field(FEATURES)),
            (0, 0xDEAD, 0xF1)
        );
        ring.set_field(PENDING, 0xBEEF);
        ring.set_field(FEATURES, 0);
        let _incoming = Incoming::new(map()).unwrap();
        assert_eq!((ring.field(PENDING), ring.field(MASK), ring.field(FEATURES)), (0xBEEF, 1, 1));
    }
}

/// Checklist 74, for the ring.
#[test]
fn test_ring_reopened_over_its_memory_resumes_without_loss() {
    for mode in BOTH_MODES {
        let mut ring = ring(1, mode);
        ring.advance_to(4000);
        for id in 0..5 {
            write_one(&mut ring.outgoing, id, &[id as u8; 40]).unwrap();
        }
        let map = || ring.memory.ring(&ring.pages, mode).unwrap();
        let mut incoming = Incoming::new(map()).unwrap();
        let mut outgoing = Outgoing::new(map()).unwrap();
        write_one(&mut outgoing, 5, &[5; 40]).unwrap();
        assert!(incoming.unmask().unwrap());
        let ids: Vec<u64> =
            drain(&mut incoming).unwrap().0.iter().map(|packet| packet.transaction_id).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5]);
    }
}

#[test]
fn test_ring_watch_shows_the_ring_and_does_not_keep_it() {
    let mut ring = ring(1, Mode::Mirrored);
    write_one(&mut ring.outgoing, 1, &[1; 16]).unwrap();
    let watch = ring.incoming.watch();
    let shown = watch.snapshot().unwrap();
    assert_eq!(shown, ring.incoming.indices());
    assert_eq!(
        (shown.write_index, shown.used, shown.data_size, shown.mode),
        (40, Some(40), 4096, Mode::Mirrored)
    );
    ring.set_field(common::READ_INDEX, 5);
    assert_eq!(watch.snapshot().unwrap().used, None, "an index that is none has no distance");
    drop(ring.incoming);
    assert_eq!(watch.snapshot(), None);
}
