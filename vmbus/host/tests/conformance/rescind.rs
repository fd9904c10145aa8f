//! Rescind and release: vmbus-core 4.2, checklist 45, 54 and 55.

use vmbus_host::OfferError;
use vmbus_host::core::{ChannelKey, ChannelState, Ignored};
use vmbus_protocol::Version;

use crate::common::{Answer, Guest, Range, Reply, instance, offer, post};

// 54: the order of messages to the guest, all of them after the device has closed.
#[test]
fn test_rescind_comes_after_the_device_the_views_and_the_pending_answers() {
    let mut guest = Guest::v5_3(1);
    guest.open(1, 10);
    guest.create(1, 11, 3);
    guest.create(1, 12, 3);
    guest.post(&post::gpadl(1, 13, &[Range::pages(0, 60)])[0]).unwrap();
    let (asked, unasked) = (guest.map(1, 11).unwrap(), guest.map(1, 12).unwrap());
    guest.post(&post::teardown(1, 11)).unwrap();
    guest.on_close = Answer::Hold;
    let key = guest.key(1);
    guest.rescind(key);
    assert_eq!(guest.take(), []);
    guest.closed();
    let replies = guest.take();
    assert!(replies.len() == 1 && replies[0].is_refusal_of(1, 13), "{replies:?}");
    assert_eq!(guest.drop_view(asked), [Reply::Torndown(11)]);
    assert_eq!(guest.drop_view(unasked), [Reply::Rescind(1)], "12 was not asked for");
    assert_eq!(guest.state(1), Some(ChannelState::Revoked));
}

// 45, 54: the answers of a rescinded channel.
#[test]
fn test_rescind_leaves_a_channel_that_answers_without_doing() {
    let mut guest = Guest::v5_3(1);
    guest.open(1, 10);
    let key = guest.key(1);
    guest.rescind(key);
    assert_eq!(guest.take(), [Reply::Rescind(1)]);
    assert_eq!(guest.bound.len(), 1, "signals stay valid until the release");
    assert_eq!(guest.ask(&post::open(1, 10, 4, 0)), []);
    assert_eq!(
        guest.create(1, 11, 100),
        [Reply::created(1, 11)],
        "one answer, bodies are nobody's"
    );
    assert_eq!(guest.ask(&post::teardown(1, 11)), [Reply::Torndown(11)]);
    assert_eq!(guest.ask(&post::teardown(1, 10)), [Reply::Torndown(10)]);
    assert_eq!(guest.post(&post::close(1)), Ok(()), "no guest error");
    assert_eq!(guest.core.offer(offer(0)), Err(OfferError::InstanceInUse(instance(0))));
    assert_eq!(guest.ask(&post::release(1)), []);
    assert_eq!((guest.removed.as_slice(), guest.bound.len()), (&[key][..], 0));
    assert_eq!(guest.post(&post::release(1)), Err(Ignored::Channel(1)));
    guest.offer(0);
    assert!(matches!(guest.take()[..], [Reply::Offer { relid: 1, .. }]));
    guest.open(1, 10);
}

// 54: a rescind during the device's open.
#[test]
fn test_rescind_while_opening_ends_without_a_result() {
    for accepted in [true, false] {
        let mut guest = Guest::v5_3(1);
        guest.create(1, 10, 8);
        guest.on_open = Answer::Hold;
        guest.post(&post::open(1, 10, 4, 0)).unwrap();
        let key = guest.key(1);
        guest.rescind(key);
        assert_eq!(guest.take(), []);
        guest.opened(accepted);
        assert_eq!(guest.take(), [Reply::Rescind(1)], "Linux wakes from its open by the RESCIND");
    }
}

// 54
#[test]
fn test_rescind_while_closing_drops_the_open_that_waits() {
    let mut guest = Guest::closing();
    guest.post(&post::open(1, 10, 4, 0)).unwrap();
    let key = guest.key(1);
    guest.rescind(key);
    guest.closed();
    assert_eq!(guest.take(), [Reply::Rescind(1)]);
}

#[test]
fn test_rescind_of_a_channel_whose_device_gave_up_is_immediate() {
    let mut guest = Guest::v5_3(1);
    guest.open(1, 10);
    guest.fault(1);
    let key = guest.key(1);
    guest.rescind(key);
    assert_eq!(guest.take(), [Reply::Rescind(1)]);
}

#[test]
fn test_rescind_of_a_device_that_no_guest_knows_is_silent() {
    let mut guest = Guest::new(1);
    let key = guest.core.channel_reports()[0].key;
    guest.rescind(key);
    guest.rescind(key);
    assert_removed_silently(&mut guest, key);
    guest.offer(0);
}

#[test]
fn test_rescind_twice_is_one_rescind() {
    let mut guest = Guest::open_held(1);
    let key = guest.key(1);
    guest.rescind(key);
    guest.rescind(key);
    guest.closed();
    guest.rescind(key);
    assert_eq!(guest.take(), [Reply::Rescind(1)]);
    guest.post(&post::release(1)).unwrap();
    assert_eq!(guest.removed, [key]);
}

// 55
#[test]
fn test_rescind_missing_a_release_of_an_open_channel_is_ignored() {
    let mut guest = Guest::v5_3(1);
    guest.create(1, 10, 8);
    guest.on_open = Answer::Hold;
    guest.post(&post::open(1, 10, 4, 0)).unwrap();
    assert_eq!(guest.post(&post::release(1)), Err(Ignored::ChannelState(1)));
    guest.opened(true);
    assert_eq!(guest.post(&post::release(1)), Err(Ignored::ChannelState(1)));
    assert_eq!(guest.state(1), Some(ChannelState::Open));
}

// 4.2: a released channel is kept until the next connection.
#[test]
fn test_rescind_missing_a_channel_that_the_guest_released_comes_back_with_the_next_contact() {
    let mut guest = Guest::v5_3(1);
    guest.create(1, 11, 3);
    assert_eq!(guest.ask(&post::release(1)), []);
    assert!(guest.core.gpadl_reports().is_empty() && guest.bound.is_empty());
    assert_eq!(guest.post(&post::open(1, 10, 4, 0)), Err(Ignored::Channel(1)));
    guest.post(&post::contact(Version::V5_3.word(), 0)).unwrap();
    guest.take();
    assert_eq!(guest.ask(&post::request_offers()).len(), 2);
    guest.open(1, 11);
}

#[test]
fn test_rescind_of_a_channel_that_the_guest_released_is_silent() {
    let mut guest = Guest::v5_3(1);
    let key = guest.key(1);
    guest.post(&post::release(1)).unwrap();
    guest.rescind(key);
    assert_removed_silently(&mut guest, key);
}

// 4.2: a guest that has released a channel answers no RESCIND for it, so the host must neither send
// one nor wait for the answer.
#[test]
fn test_rescind_after_the_guest_released_is_not_sent() {
    // Released while the device is closing it.
    let mut guest = Guest::closing();
    let key = guest.key(1);
    guest.post(&post::release(1)).unwrap();
    guest.rescind(key);
    guest.closed();
    assert_removed_silently(&mut guest, key);
}

// 4.2: the release comes before the rescind, or crosses it.
#[test]
fn test_rescind_of_a_released_channel_with_a_view_is_not_sent() {
    for is_crossed in [false, true] {
        let mut guest = Guest::v5_3(1);
        let key = guest.key(1);
        guest.create(1, 11, 3);
        let view = guest.map(1, 11).unwrap();
        if is_crossed {
            guest.rescind(key);
            guest.post(&post::release(1)).unwrap();
        } else {
            guest.post(&post::release(1)).unwrap();
            guest.rescind(key);
        }
        drop(view);
        guest.settle();
        assert_removed_silently(&mut guest, key);
        guest.offer(0);
        assert!(matches!(guest.take()[..], [Reply::Offer { relid: 1, .. }]));
    }
}

// A device may be removed during the reset of an old connection.
#[test]
fn test_rescind_during_a_reset_gives_relid_and_connection_id_back() {
    let mut guest = Guest::v5_3(2);
    guest.open(1, 10);
    let (first, second) = (guest.key(1), guest.key(2));
    guest.on_close = Answer::Hold;
    guest.post(&post::contact(Version::V5_3.word(), 0)).unwrap();
    guest.rescind(second);
    guest.rescind(first);
    guest.closed();
    assert_eq!((guest.removed.len(), guest.bound.len()), (2, 0));
    guest.take();
    guest.offer(7);
    let replies = guest.ask(&post::request_offers());
    assert!(
        matches!(replies[..], [Reply::Offer { relid: 1, .. }, Reply::AllOffers]),
        "{replies:?}"
    );
}

/// Checks that the device is gone and that the guest heard nothing of it.
fn assert_removed_silently(guest: &mut Guest, key: ChannelKey) {
    assert_eq!((guest.take(), guest.removed.as_slice()), (vec![], &[key][..]));
}
