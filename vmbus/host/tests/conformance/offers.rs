//! Offers: vmbus-core 3.4 and 4.1, checklist 26, 27, hot add.

use std::collections::BTreeSet;

use vmbus_host::OfferError;
use vmbus_host::core::Ignored;
use vmbus_protocol::limits::MAX_CHANNELS;
use vmbus_protocol::{Guid, Version};

use crate::common::{Guest, Reply, instance, offer, post};

fn relids(replies: &[Reply]) -> Vec<(u32, Guid)> {
    let offers = replies.iter().filter_map(|reply| match reply {
        Reply::Offer { relid, instance, .. } => Some((*relid, *instance)),
        _ => None,
    });
    offers.collect()
}

// 26
#[test]
fn test_offers_come_once_before_all_delivered() {
    let mut guest = Guest::new(3);
    guest.post(&post::contact(Version::V5_3.word(), 0)).unwrap();
    guest.take();
    let replies = guest.ask(&post::request_offers());
    assert_eq!(relids(&replies), [(1, instance(0)), (2, instance(1)), (3, instance(2))]);
    assert_eq!(replies[3..], [Reply::AllOffers]);
    assert_eq!(guest.post(&post::request_offers()), Err(Ignored::Repeated));
    assert_eq!(guest.take(), []);
}

#[test]
fn test_offers_without_devices_are_delivered_all_the_same() {
    let mut guest = Guest::new(0);
    guest.post(&post::contact(Version::V5_3.word(), 0)).unwrap();
    guest.take();
    assert_eq!(guest.ask(&post::request_offers()), [Reply::AllOffers]);
}

// 27
#[test]
fn test_offers_are_sorted_by_class_order_instance_with_dense_relids() {
    let mut guest = Guest::new(0);
    let (low, high) = (Guid::from_bytes([1; 16]), Guid::from_bytes([2; 16]));
    for (class, order, number) in
        [(high, 0, 1), (low, 7, 2), (low, 1, 9), (low, 1, 3), (high, 0, 0)]
    {
        let mut device = offer(number);
        (device.class, device.order) = (class, order);
        guest.core.offer(device).unwrap();
    }
    guest.post(&post::contact(Version::V5_3.word(), 0)).unwrap();
    guest.take();
    let expected = [3, 9, 2, 0, 1].map(instance);
    let found = relids(&guest.ask(&post::request_offers()));
    assert_eq!(found, Vec::from_iter((1..).zip(expected)));
}

// 27
#[test]
fn test_offers_with_an_instance_in_use_are_refused_over_all_classes() {
    let mut guest = Guest::new(1);
    let mut twin = offer(0);
    twin.class = Guid::from_bytes([9; 16]);
    assert_eq!(guest.core.offer(twin), Err(OfferError::InstanceInUse(instance(0))));
}

// 2.4, 2.5
#[test]
fn test_offers_name_bound_and_unique_connection_ids() {
    let mut guest = Guest::v5_3(0);
    for number in 0..20 {
        guest.offer(number);
    }
    let ids: BTreeSet<u32> = guest
        .take()
        .iter()
        .map(|reply| match reply {
            Reply::Offer { connection_id, .. } => *connection_id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids.len(), 20);
    assert_eq!(ids, guest.bound);
    assert!(ids.iter().all(|&id| id > 4 && id < 1 << 24));
}

// 3.4
#[test]
fn test_offers_of_hot_added_devices_wait_for_request_offers() {
    let mut guest = Guest::new(1);
    guest.post(&post::contact(Version::V5_3.word(), 0)).unwrap();
    guest.take();
    guest.offer(7);
    assert_eq!(guest.take(), []);
    let replies = guest.ask(&post::request_offers());
    assert_eq!(relids(&replies).len(), 2);
    guest.offer(8);
    assert_eq!(relids(&guest.take()), [(3, instance(8))]);
}

#[test]
fn test_offers_beyond_the_last_channel_are_refused() {
    let last = u32::try_from(MAX_CHANNELS).unwrap();
    let mut guest = Guest::v5_3(last);
    assert_eq!(guest.core.channel_reports().last().unwrap().relid, Some(last));
    assert_eq!(guest.core.offer(offer(last)), Err(OfferError::TooMany));
    let key = guest.key(5);
    guest.rescind(key);
    assert_eq!(guest.take(), [Reply::Rescind(5)]);
    assert_eq!(guest.ask(&post::release(5)), []);
    guest.offer(last);
    assert_eq!(relids(&guest.take()), [(5, instance(last))]);
}
