//! Save and restore of the core (kmcl 21, vmbus-core 74): the cases that the loopback VM's tests do
//! not reach.

use vmbus_host::RestoreError;
use vmbus_host::core::{ChannelState, Place};
use vmbus_host::saved::SavedBus;

use crate::common::{Answer, Guest, Reply, VPS, instance, post};

/// Every device continues.
fn all(_: Place) -> Option<Vec<u8>> {
    Some(Vec::new())
}

/// Restores the state on a new machine with `devices` devices over the same memory. Returns the
/// machine, and the messages to its guest.
fn restored(saved: &SavedBus, devices: u32) -> (Guest, Vec<Reply>) {
    let mut guest = Guest::new(devices);
    guest.core.restore(saved).unwrap();
    guest.settle();
    let heard = guest.take();
    (guest, heard)
}

/// Returns a guest with relid 1 open, subchannels 1 and 2 (relids 2 and 3), and the first of them
/// open too.
fn with_open_subchannel() -> Guest {
    let mut guest = Guest::v5_3(1);
    guest.open(1, 10);
    let key = guest.key(1);
    guest.core.offer_subchannels(key, 2);
    guest.settle();
    assert_eq!(guest.take().len(), 2);
    guest.open(2, 11);
    guest
}

#[test]
fn test_restore_gives_subchannels_back_and_tells_the_guest_nothing() {
    let guest = with_open_subchannel();
    let (mut there, heard) = restored(&guest.core.save(all, Vec::new()), 1);
    assert_eq!(heard, []);
    let open: Vec<(u32, u16)> =
        there.held.values().map(|params| (params.relid, params.subchannel)).collect();
    assert_eq!(open, [(1, 0), (2, 1)]);
    assert_eq!(there.core.channel_reports().len(), 3);
    assert_eq!(there.bound, guest.bound);
    assert_eq!(
        (there.state(1), there.state(3)),
        (Some(ChannelState::Open), Some(ChannelState::Closed))
    );
    // The channels still end together.
    assert_eq!(there.ask(&post::open(3, 11, 4, 0)).len(), 1, "another channel's ring");
    let mut gone = there.ask(&post::close(1));
    gone.sort_by_key(|reply| format!("{reply:?}"));
    assert_eq!(gone, [2, 3].map(Reply::Rescind));
}

#[test]
fn test_restore_rescinds_a_subchannel_that_cannot_continue_and_offers_it_again() {
    let guest = with_open_subchannel();
    let primary_alone = |place: Place| (place.subchannel == 0).then(Vec::new);
    let (mut there, heard) = restored(&guest.core.save(primary_alone, Vec::new()), 1);
    assert_eq!(heard, [Reply::Rescind(2)]);
    assert_eq!(there.held.len(), 1);
    let replies = there.ask(&post::release(2));
    assert!(matches!(replies[..], [Reply::Offer { relid: 2, subchannel: 1, .. }]), "{replies:?}");
    there.open(2, 20);
}

#[test]
fn test_restore_rescinds_all_subchannels_of_a_primary_that_cannot_continue() {
    let guest = with_open_subchannel();
    let (mut there, heard) = restored(&guest.core.save(|_| None, Vec::new()), 1);
    assert_eq!(heard.len(), 3);
    assert_eq!(heard[2], Reply::Rescind(1), "{heard:?}");
    for relid in [2, 3] {
        assert_eq!(there.ask(&post::release(relid)), []);
    }
    let replies = there.ask(&post::release(1));
    assert!(matches!(replies[..], [Reply::Offer { relid: 1, subchannel: 0, .. }]), "{replies:?}");
    assert_eq!(there.core.channel_reports().len(), 1);
}

#[test]
fn test_restore_asks_a_device_again_that_was_being_asked() {
    let mut guest = Guest::v5_3(1);
    guest.create(1, 10, 8);
    guest.on_open = Answer::Hold;
    assert_eq!(guest.ask(&post::open(1, 10, 4, 0)), []);
    let (there, heard) = restored(&guest.core.save(all, Vec::new()), 1);
    assert_eq!(heard, [Reply::opened(1)]);
    assert_eq!(there.held.len(), 1);
}

#[test]
fn test_restore_offers_a_device_again_that_was_being_removed_and_is_back() {
    let mut guest = Guest::v5_3(2);
    guest.rescind(guest.key(2));
    assert_eq!(guest.take(), [Reply::Rescind(2)]);
    let saved = guest.core.save(all, Vec::new());
    let (mut there, heard) = restored(&saved, 2);
    assert_eq!(heard, [], "the guest knows of it");
    let replies = there.ask(&post::release(2));
    assert!(
        matches!(replies[..], [Reply::Offer { relid: 2, instance: of, .. }] if of == instance(1)),
        "{replies:?}"
    );
    let (mut there, heard) = restored(&saved, 1);
    assert_eq!((heard, there.ask(&post::release(2))), (vec![], vec![]));
    assert_eq!(there.core.channel_reports().len(), 1);
}

#[test]
fn test_restore_rescinds_only_when_the_last_list_is_answered() {
    let mut guest = Guest::v5_3(1);
    guest.open(1, 10);
    guest.create(1, 5, 3);
    guest.post(&post::header(1, 6, 1, 800, &[])).unwrap();
    let (there, heard) = restored(&guest.core.save(|_| None, Vec::new()), 1);
    assert!(
        heard.len() == 2 && heard[0].is_refusal_of(1, 6) && heard[1] == Reply::Rescind(1),
        "{heard:?}"
    );
    assert_eq!((there.core.gpadls_arriving(), there.core.gpadl_charges()), (0, (0, 0)));
}

#[test]
fn test_restore_keeps_charges_and_quotas() {
    let mut guest = Guest::v5_3(2);
    // 26 words behind a range of one page: charged as declared.
    guest
        .post(&post::header(1, 5, 1, 216, &post::range_data(&[post::Range::pages(0, 1)])))
        .unwrap();
    guest.take();
    guest.create(1, 6, 300);
    guest.create(2, 6, 30);
    guest.post(&post::header(2, 7, 3, 65_528, &[0; 0])).unwrap();
    guest.take();
    let before =
        (guest.core.gpadl_charges(), guest.core.gpadl_reports(), guest.core.gpadls_arriving());
    let (there, _) = restored(&guest.core.save(all, Vec::new()), 2);
    let after =
        (there.core.gpadl_charges(), there.core.gpadl_reports(), there.core.gpadls_arriving());
    assert_eq!(after, before);
}

#[test]
fn test_restore_on_a_machine_with_fewer_vps_is_refused() {
    let mut guest = Guest::new(1);
    guest.post(&post::contact(vmbus_protocol::Version::V5_3.word(), VPS - 1)).unwrap();
    let saved = guest.core.save(all, Vec::new());
    let mut small = vmbus_host::core::Core::new(
        guest.ram.clone(),
        VPS - 1,
        std::sync::Arc::new(crate::common::Sink::default()),
    );
    assert_eq!(small.restore(&saved), Err(RestoreError::Vp(VPS - 1)));
}
