//! Devices of all kinds: they refuse, drop or keep channels, or ask for more inside `open`.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use vmbus_gpadl::MapError;
use vmbus_host::core::ChannelState;
use vmbus_host::{OpenError, ReadWrite};

use crate::common::shell::{Machine, TestDevice, is_rung};
use crate::common::{Reply, post};

fn refusal() -> OpenError {
    OpenError("not today".into())
}

#[test]
fn test_device_that_drops_the_channel_in_open_leaves_a_channel_to_close_and_open() {
    let machine = Machine::new();
    machine
        .bus
        .offer(TestDevice::new(0, |channel| {
            drop(channel);
            Ok(())
        }))
        .unwrap();
    machine.connect();
    for ring in [10, 11] {
        machine.open(1, ring);
        assert_eq!(machine.bus.inspect().channels[0].channel.state, ChannelState::Faulted);
        assert_eq!(machine.ask(&post::close(1)), []);
        assert_eq!(machine.ask(&post::teardown(1, ring)), [Reply::Torndown(ring)]);
    }
}

// kmcl 12
#[test]
fn test_device_that_refuses_fails_the_open_and_may_be_asked_again() {
    let machine = Machine::new();
    let (sender, channels) = channel();
    let mut refusals = 2;
    machine
        .bus
        .offer(TestDevice::new(0, move |channel| {
            if refusals > 0 {
                refusals -= 1;
                return Err(refusal());
            }
            sender.send(channel).unwrap();
            Ok(())
        }))
        .unwrap();
    machine.connect();
    let replies = machine.open_at(1, 10, 80, 0);
    assert!(replies.len() == 1 && replies[0].is_open_failure_of(1, 1), "{replies:?}");
    let replies = machine.ask(&post::open(1, 10, 4, 0));
    assert!(replies.len() == 1 && replies[0].is_open_failure_of(1, 1), "{replies:?}");
    assert_eq!(machine.ask(&post::open(1, 10, 4, 0)), [Reply::opened(1)]);
    assert!(!channels.recv().unwrap().is_closing());
}

/// The channel of a refused open ends later, which must not end the next one.
#[test]
fn test_device_that_refuses_and_lets_go_later_does_not_end_the_next_open() {
    let machine = Machine::new();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    machine
        .bus
        .offer(TestDevice::new(0, move |channel| {
            let mut kept = keep.lock().unwrap();
            kept.push(channel);
            if kept.len() == 1 { Err(refusal()) } else { Ok(()) }
        }))
        .unwrap();
    machine.connect();
    let replies = machine.open_at(1, 10, 80, 0);
    assert!(replies[0].is_open_failure_of(1, 1), "{replies:?}");
    machine.open(1, 11);
    drop(kept.lock().unwrap().remove(0));
    assert_eq!(machine.bus.inspect().channels[0].channel.state, ChannelState::Open);
    assert_eq!(machine.ask(&post::close(1)), []);
    assert!(kept.lock().unwrap()[0].is_closing());
    assert_eq!(machine.ask(&post::teardown(1, 11)), []);
    let last = kept.lock().unwrap().pop();
    drop(last);
    assert_eq!(machine.replies(), [Reply::Torndown(11)]);
}

#[test]
fn test_device_may_map_and_want_subchannels_inside_open() {
    let machine = Machine::new();
    let (sender, opened) = channel();
    machine
        .bus
        .offer(TestDevice::new(0, move |channel| {
            if channel.subchannel() == 0 {
                channel.offer_subchannels(2);
            }
            let maps = (
                channel.map_gpadl(5, ReadWrite).is_ok(),
                channel.map_gpadl(6, ReadWrite).unwrap_err(),
            );
            sender.send((channel, maps)).unwrap();
            Ok(())
        }))
        .unwrap();
    machine.connect();
    machine.ask(&post::gpadl(1, 5, &[post::Range::pages(0, 3)])[0]);
    let replies = machine.open_at(1, 10, 80, 0);
    assert!(
        matches!(
            replies[..],
            [
                Reply::OpenResult { status: 0, .. },
                Reply::Offer { relid: 2, subchannel: 1, .. },
                Reply::Offer { relid: 3, subchannel: 2, .. }
            ]
        ),
        "{replies:?}"
    );
    let (_primary, maps) = opened.recv().unwrap();
    assert_eq!(maps, (true, MapError::Unknown(6)));
    machine.open(3, 11);
    let (sub, maps) = opened.recv().unwrap();
    assert_eq!(
        (sub.relid(), sub.subchannel(), maps.0),
        (3, 2, false),
        "GPADLs belong to one channel"
    );
}

/// 4.4: the ring is as the guest left it, and invalid rings open nothing.
#[test]
fn test_device_is_not_asked_when_the_ring_is_corrupt() {
    use vm_memory::{Bytes, GuestAddress};
    let (machine, channels, _) = Machine::with_device();
    assert_eq!(machine.open_at(1, 10, 80, 0).len(), 1);
    drop(channels.recv().unwrap());
    machine.post(&post::close(1));
    for (page, offset) in [(80, 0), (80, 4), (84, 0), (84, 4)] {
        let index = GuestAddress(page * 4096 + offset);
        machine.ram.memory().write_obj(0xFFF1_u32, index).unwrap();
        let replies = machine.ask(&post::open(1, 10, 4, 0));
        assert!(
            replies.len() == 1 && replies[0].is_open_failure_of(1, 1),
            "{page} {offset}: {replies:?}"
        );
        machine.ram.memory().write_obj(0_u32, index).unwrap();
        assert!(channels.try_recv().is_err());
    }
    assert_eq!(machine.ask(&post::open(1, 10, 4, 0)), [Reply::opened(1)]);
}

#[test]
fn test_device_is_notified_of_the_close_by_its_doorbell_and_ends_it_by_dropping() {
    let (machine, channels, key) = Machine::with_device();
    machine.open(1, 10);
    let channel = channels.recv().unwrap();
    assert!(is_rung(channel.doorbell()), "it looks once, whatever the guest did before");
    assert!(!is_rung(channel.doorbell()) && !channel.is_closing());
    machine.bus.rescind(key);
    assert!(is_rung(channel.doorbell()) && channel.is_closing());
    assert_eq!(machine.replies(), []);
    drop(channel);
    assert_eq!(machine.replies(), [Reply::Rescind(1)]);
    machine.post(&post::release(1));
    assert!(machine.bus.inspect().channels.is_empty());
    assert!(channels.recv().is_err(), "the device is gone with its channel");
}

#[test]
fn test_device_that_outlives_the_bus_drops_its_channel_in_peace() {
    let (machine, channels, _) = Machine::with_device();
    machine.open(1, 10);
    let channel = channels.recv().unwrap();
    drop(machine);
    channel.signal();
    channel.offer_subchannels(3);
    drop(channel);
}

#[test]
fn test_device_sees_what_the_guest_opened_with_and_inspect_shows_it() {
    let (machine, channels, _) = Machine::with_device();
    machine.open_at(1, 10, 80, 3);
    let channel = channels.recv().unwrap();
    assert_eq!((channel.relid(), channel.subchannel(), channel.target_vp()), (1, 0, 3));
    assert_eq!((channel.user_data(), channel.incoming.data_size()), (&[7; 120], 3 * 4096));
    assert_eq!(channel.outgoing.data_size(), 3 * 4096);
    let report = machine.bus.inspect();
    let open = &report.channels[0];
    assert_eq!((open.channel.state, open.channel.target_vp), (ChannelState::Open, Some(3)));
    assert_eq!((open.channel.ring, open.signals_sent), (Some((10, 4)), 1));
    assert!(open.incoming.is_some() && open.outgoing.is_some());
    assert_eq!((report.gpadls[0].id, report.gpadls[0].pages), (10, 8));
    assert!(report.gpadls[0].views > 0);
    drop(channel);
    let report = machine.bus.inspect();
    assert!(report.channels[0].incoming.is_none());
    assert_eq!(report.gpadls[0].views, 0);
}
