//! Socket connections: vmbus-core 4.7, checklist 57 and 58; hvsock-vpci A7, 2, 5, 11 and 12.

use vmbus_host::core::ChannelKey;
use vmbus_host::{ConnectRequest, Offer, OfferError};
use vmbus_protocol::offer::{OfferFlags, status};
use vmbus_protocol::{Guid, Version};

use crate::common::{Answer, Guest, Reply, post};

const SERVICE: Guid = Guid::new(5000, 0xfacb, 0x11e6, [0xbd; 8]);
const ENDPOINT: Guid = Guid::new(7, 7, 7, [7; 8]);

fn socket(endpoint: Guid) -> Offer {
    Offer::new(SERVICE, endpoint, 0).flags(OfferFlags::TLNPI_PROVIDER)
}

/// Returns a guest with one connection, whose relid is 1.
fn offered() -> (Guest, ChannelKey) {
    let mut guest = Guest::v5_3(0);
    let key = guest.core.offer(socket(ENDPOINT)).unwrap();
    guest.settle();
    assert!(matches!(guest.take()[..], [Reply::Offer { relid: 1, .. }]));
    (guest, key)
}

fn opened() -> (Guest, ChannelKey) {
    let (mut guest, key) = offered();
    guest.open(1, 10);
    (guest, key)
}

/// The guest answers the rescind, and nothing of the connection is left.
fn release(guest: &mut Guest, key: ChannelKey) {
    assert_eq!(guest.removed, [], "only after the release");
    assert_eq!(guest.ask(&post::release(1)), []);
    assert_eq!((guest.removed.as_slice(), guest.bound.len()), (&[key][..], 0));
    assert!(guest.core.gpadl_reports().is_empty() && guest.core.channel_reports().is_empty());
}

// 57
#[test]
fn test_socket_request_goes_to_the_shell_and_its_refusal_to_guests_from_4_1_on() {
    for version in Version::ALL {
        let mut guest = Guest::connected(0, version);
        guest.core.accept_connects();
        assert_eq!(guest.ask(&post::tl_connect(ENDPOINT, SERVICE)), [], "{version}");
        let requests = std::mem::take(&mut guest.connects);
        assert_eq!(requests.len(), usize::from(version >= Version::V4_0), "{version}");
        for request in requests {
            let ConnectRequest { endpoint, service, .. } = request;
            assert_eq!((endpoint, service), (ENDPOINT, SERVICE));
            guest.core.refuse_connect(request);
            guest.settle();
            let status = status::CONNECTION_REFUSED;
            let refusal = Reply::TlResult { endpoint, service, status };
            assert_eq!(guest.take(), vec![refusal; usize::from(version >= Version::V4_1)]);
        }
    }
}

// 58
#[test]
fn test_socket_closed_by_either_end_is_rescinded_once() {
    let (mut guest, key) = opened();
    assert_eq!(guest.ask(&post::close(1)), [Reply::Rescind(1)]);
    assert_eq!(guest.ask(&post::teardown(1, 10)), [Reply::Torndown(10)]);
    release(&mut guest, key);

    let (mut guest, key) = opened();
    guest.fault(1);
    assert_eq!(guest.take(), [Reply::Rescind(1)]);
    // Linux closes a rescinded channel, and then releases it.
    assert_eq!(guest.ask(&post::close(1)), []);
    release(&mut guest, key);

    // Both ends at the same time.
    let (mut guest, key) = opened();
    guest.on_close = Answer::Hold;
    assert_eq!(guest.ask(&post::close(1)), []);
    guest.rescind(key);
    guest.closed();
    assert_eq!(guest.take(), [Reply::Rescind(1)]);
    release(&mut guest, key);
}

#[test]
fn test_socket_that_the_device_refuses_or_the_guest_releases_is_gone() {
    let (mut guest, key) = offered();
    guest.on_open = Answer::Refuse;
    guest.create(1, 10, 8);
    let replies = guest.ask(&post::open(1, 10, 4, 0));
    assert!(replies.len() == 2 && replies[0].is_open_failure_of(1, 1), "{replies:?}");
    assert_eq!(replies[1], Reply::Rescind(1));
    release(&mut guest, key);

    let (mut guest, key) = offered();
    release(&mut guest, key);

    let (mut guest, key) = offered();
    guest.rescind(key);
    assert_eq!(guest.take(), [Reply::Rescind(1)], "an offer that the guest leaves unopened");
    release(&mut guest, key);
}

// A7.11
#[test]
fn test_socket_of_an_endpoint_in_use_is_refused_and_the_first_unaffected() {
    let (mut guest, _) = opened();
    assert_eq!(guest.core.offer(socket(ENDPOINT)), Err(OfferError::InstanceInUse(ENDPOINT)));
    guest.settle();
    assert_eq!(guest.take(), []);
    assert_eq!(guest.ask(&post::close(1)), [Reply::Rescind(1)]);
}

// A7.12
#[test]
fn test_socket_ends_with_the_guest_that_has_it() {
    for again in [post::contact(Version::V5_3.word(), 0), post::unload()] {
        let (mut guest, key) = opened();
        guest.post(&again).unwrap();
        assert_eq!((guest.removed.as_slice(), guest.bound.len()), (&[key][..], 0));
        assert_eq!(guest.core.offer(socket(ENDPOINT)), Err(OfferError::NoSockets));
        guest.post(&post::contact(Version::V5_3.word(), 0)).unwrap();
        guest.post(&post::request_offers()).unwrap();
        guest.take();
        guest.core.offer(socket(ENDPOINT)).unwrap();
        guest.settle();
        assert!(matches!(guest.take()[..], [Reply::Offer { relid: 1, .. }]));
    }
}

#[test]
fn test_socket_is_not_offered_to_guests_below_4_0() {
    let mut guest = Guest::connected(0, Version::V3_0);
    assert_eq!(guest.core.offer(socket(ENDPOINT)), Err(OfferError::NoSockets));
}
