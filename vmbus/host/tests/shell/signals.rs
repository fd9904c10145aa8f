//! Events to the guest and doorbells from it: checklist 16, 48, 50, 56.

use std::sync::atomic::Ordering;

use vmbus_host::HvStatus;
use vmbus_protocol::offer::{NO_INTERRUPT_VP, VMBUS_SINT};

use crate::common::shell::{Heard, Machine, is_rung};
use crate::common::{Reply, post};

fn event(vp: u32, flag: u16) -> Heard {
    Heard::Event { vp, sint: VMBUS_SINT, flag }
}

// 48
#[test]
fn test_signal_after_open_comes_once_behind_the_result() {
    let (machine, channels, _) = Machine::with_device();
    machine.post(&post::gpadl(1, 10, &[post::Range::pages(80, 8)])[0]);
    machine.synic.take();
    machine.post(&post::open(1, 10, 4, 2));
    let result = Heard::Message { vp: 0, sint: VMBUS_SINT, reply: Reply::opened(1) };
    assert_eq!(machine.synic.take(), [result, event(2, 1)]);
    channels.recv().unwrap().signal();
    assert_eq!(machine.synic.take(), [event(2, 1)]);
}

// 50
#[test]
fn test_signal_of_a_polling_guest_never_happens() {
    let (machine, channels, _) = Machine::with_device();
    assert_eq!(machine.open_at(1, 10, 80, NO_INTERRUPT_VP), [Reply::opened(1)]);
    let channel = channels.recv().unwrap();
    assert!(is_rung(channel.doorbell()));
    channel.signal();
    channel.signal_if(true);
    assert_eq!(machine.synic.take(), []);
    let replies = machine.ask(&post::modify(1, 0));
    assert!(matches!(replies[..], [Reply::Modified { status: 1.., .. }]), "{replies:?}");
    channel.signal();
    assert_eq!(machine.synic.take(), []);
}

// 56
#[test]
fn test_signal_moves_with_modify_channel() {
    let (machine, channels, _) = Machine::with_device();
    machine.open_at(1, 10, 80, 0);
    let channel = channels.recv().unwrap();
    machine.post(&post::modify(1, 3));
    let done =
        Heard::Message { vp: 0, sint: VMBUS_SINT, reply: Reply::Modified { relid: 1, status: 0 } };
    assert_eq!(machine.synic.take(), [done, event(3, 1)]);
    channel.signal();
    assert_eq!((machine.synic.take(), channel.target_vp()), (vec![event(3, 1)], 3));
}

#[test]
fn test_signal_counts_what_was_sent_and_what_was_saved() {
    let (machine, channels, _) = Machine::with_device();
    machine.open(1, 10);
    let channel = channels.recv().unwrap();
    for needed in [true, false, false, true] {
        channel.signal_if(needed);
    }
    let report = &machine.bus.inspect().channels[0];
    assert_eq!(
        (report.signals_sent, report.signals_suppressed),
        (3, 2),
        "with the one after the open"
    );
}

// 16
#[test]
fn test_doorbell_that_the_machine_did_not_signal_is_signalled_by_the_bus() {
    for refuses in [false, true] {
        let machine = Machine::new();
        machine.synic.refuses_doorbells.store(refuses, Ordering::Relaxed);
        let (device, channels) = crate::common::shell::TestDevice::handing_over(0);
        machine.bus.offer(device).unwrap();
        assert_eq!(machine.bus.signal_event(0x2001, 0), HvStatus::InvalidConnectionId);
        machine.connect();
        for id in [0, 1, 4, 0x2000, 0x2002, u32::MAX] {
            assert_eq!(machine.bus.signal_event(id, 0), HvStatus::InvalidConnectionId, "{id:#x}");
        }
        assert_eq!(machine.bus.signal_event(0x2001, 0), HvStatus::Success, "offered, not open");
        machine.open(1, 10);
        let channel = channels.recv().unwrap();
        is_rung(channel.doorbell());
        for flag in [1, 2047, 2048, u16::MAX] {
            assert_eq!(machine.bus.signal_event(0x2001, flag), HvStatus::InvalidParameter);
        }
        assert!(!is_rung(channel.doorbell()));
        assert_eq!(machine.bus.signal_event(0x2001, 0), HvStatus::Success);
        assert!(is_rung(channel.doorbell()));
        assert_eq!(machine.synic.ring(0x2001), !refuses);
        assert_eq!(is_rung(channel.doorbell()), !refuses, "the kernel rings the same doorbell");
    }
}

// 2.4: valid from the offer to the release.
#[test]
fn test_doorbell_is_bound_from_the_offer_to_the_release() {
    let (machine, channels, key) = Machine::with_device();
    assert_eq!(machine.synic.bound(), [0x2001]);
    machine.open(1, 10);
    machine.bus.rescind(key);
    drop(channels.recv().unwrap());
    assert_eq!(machine.replies(), [Reply::Rescind(1)]);
    assert_eq!(machine.bus.signal_event(0x2001, 0), HvStatus::Success, "rescinded, not released");
    machine.post(&post::release(1));
    assert!(machine.synic.bound().is_empty());
    assert_eq!(machine.bus.signal_event(0x2001, 0), HvStatus::InvalidConnectionId);
}
