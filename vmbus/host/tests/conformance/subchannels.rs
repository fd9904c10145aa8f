//! Subchannels: vmbus-core 4.1, 4.2 and 4.4, checklist 53.

use vmbus_host::OfferError;
use vmbus_host::core::ChannelState;
use vmbus_protocol::limits::MAX_SUBCHANNELS;

use crate::common::{Answer, Guest, Reply, instance, offer, post};

fn offered(replies: &[Reply]) -> Vec<(u32, u16)> {
    let relids = replies.iter().map(|reply| match reply {
        Reply::Offer { relid, subchannel, instance: of, .. } => {
            assert_eq!(*of, instance(0));
            (*relid, *subchannel)
        }
        other => panic!("{other:?}"),
    });
    relids.collect()
}

/// Returns a guest with one open device and `count` open subchannels: relids from 2, rings from 20.
fn with_subchannels(count: u16) -> Guest {
    let mut guest = Guest::v5_3(1);
    guest.open(1, 10);
    want(&mut guest, count);
    assert_eq!(offered(&guest.take()), Vec::from_iter((2..).zip(1..=count)));
    for relid in 2..2 + u32::from(count) {
        guest.open(relid, 20 + relid);
    }
    guest
}

fn want(guest: &mut Guest, total: u16) {
    let key =
        guest.core.channel_reports().iter().find(|report| report.subchannel == 0).unwrap().key;
    guest.core.offer_subchannels(key, total);
    guest.settle();
}

#[test]
fn test_subchannels_are_offered_once_and_served_by_the_primarys_device() {
    let mut guest = with_subchannels(2);
    want(&mut guest, 2);
    assert_eq!(guest.take(), []);
    want(&mut guest, 3);
    assert_eq!(offered(&guest.take()), [(4, 3)]);
    let params = &guest.held[&guest.key(3)];
    assert_eq!((params.primary, params.subchannel), (guest.key(1), 2));
}

#[test]
fn test_subchannels_of_a_primary_that_is_not_open_are_not_offered() {
    let mut guest = Guest::v5_3(1);
    want(&mut guest, 4);
    assert_eq!(guest.take(), []);
    guest.open(1, 10);
    assert_eq!(guest.take(), []);
}

#[test]
fn test_subchannels_of_a_subchannel_are_not_offered() {
    let mut guest = with_subchannels(1);
    let key = guest.key(2);
    guest.core.offer_subchannels(key, 4);
    guest.settle();
    assert_eq!(guest.take(), []);
}

#[test]
fn test_subchannels_beyond_the_limit_are_not_offered() {
    let mut guest = Guest::v5_3(1);
    guest.open(1, 10);
    want(&mut guest, u16::MAX);
    assert_eq!(guest.take().len(), usize::from(MAX_SUBCHANNELS));
    want(&mut guest, u16::MAX);
    assert_eq!(guest.take(), []);
}

// 53
#[test]
fn test_subchannels_are_rescinded_when_their_primary_closes() {
    let mut guest = with_subchannels(2);
    guest.on_close = Answer::Hold;
    guest.post(&post::close(1)).unwrap();
    assert_eq!(guest.closing.len(), 3);
    while !guest.closing.is_empty() {
        guest.closed();
    }
    let mut replies = guest.take();
    replies.sort_by_key(|reply| format!("{reply:?}"));
    assert_eq!(replies, [Reply::Rescind(2), Reply::Rescind(3)]);
    guest.on_close = Answer::Accept;
    for relid in [2, 3] {
        assert_eq!(guest.ask(&post::close(relid)), []);
        assert_eq!(guest.ask(&post::release(relid)), []);
    }
    assert_eq!(guest.state(1), Some(ChannelState::Closed));
    assert_eq!(guest.ask(&post::open(1, 10, 4, 0)), [Reply::opened(1)]);
    want(&mut guest, 2);
    assert_eq!(offered(&guest.take()), [(2, 1), (3, 2)], "relids come again");
}

// 53: Linux removes rescinded subchannels on a work queue, so their primary may be open again
// before they are released.
#[test]
fn test_subchannels_wanted_before_the_old_ones_are_released_come_afterwards() {
    let mut guest = with_subchannels(2);
    guest.post(&post::close(1)).unwrap();
    assert_eq!(guest.take(), [Reply::Rescind(2), Reply::Rescind(3)]);
    assert_eq!(guest.ask(&post::open(1, 10, 4, 0)), [Reply::opened(1)]);
    want(&mut guest, 3);
    assert_eq!(offered(&guest.take()), [(4, 3)]);
    assert_eq!(offered(&guest.ask(&post::release(3))), [(3, 2)]);
    assert_eq!(offered(&guest.ask(&post::release(2))), [(2, 1)]);
}

// As above, but the device does not ask for subchannels any more.
#[test]
fn test_subchannels_released_after_their_primary_closed_stay_away() {
    let mut guest = with_subchannels(2);
    guest.post(&post::close(1)).unwrap();
    guest.take();
    for relid in [2, 3] {
        assert_eq!(guest.ask(&post::release(relid)), []);
    }
    assert_eq!(guest.ask(&post::open(1, 10, 4, 0)), [Reply::opened(1)]);
    assert_eq!(guest.core.channel_reports().len(), 1);
}

// 4.2: a subchannel that the guest could not use is gone until the primary is opened again.
#[test]
fn test_subchannels_released_by_the_guest_are_not_offered_again_on_their_own() {
    let mut guest = with_subchannels(2);
    guest.post(&post::close(2)).unwrap();
    assert_eq!(guest.ask(&post::release(2)), []);
}

// 4.2: subchannels first, in any order of the devices' closes.
#[test]
fn test_subchannels_are_rescinded_before_their_primary() {
    let mut guest = with_subchannels(2);
    guest.on_close = Answer::Hold;
    let key = guest.key(1);
    guest.rescind(key);
    let place = guest.closing.iter().position(|&closing| closing == key).unwrap();
    guest.closing.swap(0, place);
    guest.closed();
    assert_eq!(guest.take(), [], "the primary is done, and waits for its subchannels");
    guest.closed();
    guest.closed();
    let replies = guest.take();
    assert_eq!(replies.len(), 3);
    assert_eq!(replies[2], Reply::Rescind(1), "{replies:?}");
    for relid in [2, 1, 3] {
        assert_eq!(guest.ask(&post::release(relid)), []);
    }
    assert_eq!(guest.removed.len(), 3);
}

// 3.4: never part of the boot-time list.
#[test]
fn test_subchannels_do_not_outlive_their_connection() {
    let mut guest = with_subchannels(2);
    guest.post(&post::contact(vmbus_protocol::Version::V5_3.word(), 0)).unwrap();
    guest.take();
    let replies = guest.ask(&post::request_offers());
    assert!(
        matches!(replies[..], [Reply::Offer { relid: 1, .. }, Reply::AllOffers]),
        "{replies:?}"
    );
    assert_eq!(guest.removed.len(), 2);
}

/// Found by fuzzing: after the removal of the primary its instance could be offered again, with a
/// second subchannel 1 of that instance.
#[test]
fn test_instance_is_in_use_until_the_guest_has_released_the_last_subchannel() {
    let mut guest = with_subchannels(1);
    let primary = guest.key(1);
    guest.rescind(primary);
    assert_eq!(guest.take(), [Reply::Rescind(2), Reply::Rescind(1)]);
    assert_eq!(guest.ask(&post::release(1)), []);
    assert_eq!(guest.core.offer(offer(0)), Err(OfferError::InstanceInUse(instance(0))));
    assert_eq!(guest.ask(&post::release(2)), []);
    assert!(guest.core.offer(offer(0)).is_ok());
}

/// Design 6: the same handle on a primary and on its subchannel, each torn down twice.
#[test]
fn test_gpadl_handle_on_primary_and_subchannel_is_torn_down_once_for_each() {
    let mut guest = with_subchannels(1);
    assert_eq!(guest.create(1, 5, 3), [Reply::created(1, 5)]);
    assert_eq!(guest.create(2, 5, 3), [Reply::created(2, 5)]);
    let (of_primary, of_subchannel) = (guest.map(1, 5).unwrap(), guest.map(2, 5).unwrap());
    for _ in 0..2 {
        let _ = guest.post(&post::teardown(1, 5));
        let _ = guest.post(&post::teardown(2, 5));
    }
    assert_eq!(guest.take(), [], "both are mapped");
    assert_eq!(guest.drop_view(of_subchannel), [Reply::Torndown(5)]);
    assert!(of_primary.is_tearing_down() && guest.map(1, 5).is_err());
    assert_eq!(guest.drop_view(of_primary), [Reply::Torndown(5)]);
    for relid in [1, 2] {
        let _ = guest.post(&post::teardown(relid, 5));
        assert_eq!(guest.take(), [], "there is none any more");
        assert_eq!(guest.create(relid, 5, 3), [Reply::created(relid, 5)]);
    }
}
