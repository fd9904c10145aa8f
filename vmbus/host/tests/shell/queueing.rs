//! Messages and events that come while another thread works on the bus.

use std::sync::Barrier;
use std::thread;

use vmbus_host::{Channel, HvStatus, ReadWrite};
use vmbus_protocol::limits::{MAX_INBOX_MESSAGES, MAX_MESSAGE_SIZE};

use crate::common::shell::{Machine, TestDevice};
use crate::common::{PORT, Reply, post};

/// Returns a GPADL message; its answer contains `id`.
fn numbered(id: u32) -> Vec<u8> {
    post::gpadl(1, id, &[post::Range::pages(0, 1)]).remove(0)
}

#[test]
fn test_message_posted_while_another_thread_holds_the_bus_is_handled_in_order() {
    let (machine, _channels, _) = Machine::with_device();
    let hold = machine.synic.hold_next_message();
    thread::scope(|scope| {
        let first = scope.spawn(|| machine.post(&numbered(0)));
        hold.wait();
        for id in 1..10 {
            machine.post(&numbered(id));
        }
        assert_eq!(machine.replies(), [], "the thread that holds the bus handles them");
        hold.release();
        first.join().unwrap();
    });
    assert_eq!(machine.replies(), Vec::from_iter((0..10).map(|id| Reply::created(1, id))));
}

#[test]
fn test_message_from_each_of_many_threads_is_handled_in_its_order() {
    let (machine, _channels, _) = Machine::with_device();
    let (threads, each) = (4, 200);
    let start = Barrier::new(threads as usize);
    thread::scope(|scope| {
        for thread in 0..threads {
            let (machine, start) = (&machine, &start);
            scope.spawn(move || {
                start.wait();
                for number in 0..each {
                    let message = numbered(thread * each + number);
                    // The inbox may be full: like every guest, try again.
                    while machine.bus.post_message(PORT, 1, &message)
                        == HvStatus::InsufficientBuffers
                    {
                        thread::yield_now();
                    }
                }
            });
        }
    });
    machine.synic.wait_for((threads * each) as usize);
    let replies = machine.replies();
    assert_eq!(replies.len(), (threads * each) as usize);
    for thread in 0..threads {
        let ids = replies.iter().filter_map(|reply| match reply {
            Reply::Created { id, .. } if id / each == thread => Some(*id),
            _ => None,
        });
        assert!(ids.eq(thread * each..(thread + 1) * each), "thread {thread}");
    }
}

// Checklist 15
#[test]
fn test_message_to_a_full_inbox_is_refused_and_nothing_is_lost() {
    let (machine, _channels, _) = Machine::with_device();
    let limit = u32::try_from(MAX_INBOX_MESSAGES).unwrap();
    let hold = machine.synic.hold_next_message();
    thread::scope(|scope| {
        let first = scope.spawn(|| machine.post(&numbered(0)));
        hold.wait();
        for id in 1..=limit {
            machine.post(&numbered(id));
        }
        let full = machine.bus.post_message(PORT, 1, &numbered(limit + 1));
        assert_eq!(full, HvStatus::InsufficientBuffers);
        hold.release();
        first.join().unwrap();
    });
    // The first thread handles some of them, a helper the rest.
    machine.synic.wait_for(limit as usize + 1);
    assert_eq!(machine.replies(), Vec::from_iter((0..=limit).map(|id| Reply::created(1, id))));
    // The helper may still be running, and then handles this message too.
    machine.post(&numbered(limit + 1));
    machine.synic.wait_for(1);
    assert_eq!(machine.replies(), [Reply::created(1, limit + 1)]);
}

// Checklist 14
#[test]
fn test_message_that_no_port_takes_gets_its_status() {
    let machine = Machine::new();
    let contact = post::contact(0x0005_0003, 0);
    for (port, kind, len, status) in [
        (2, 1, 40, HvStatus::InvalidConnectionId),
        (0, 1, 40, HvStatus::InvalidConnectionId),
        (u32::MAX, 1, 40, HvStatus::InvalidConnectionId),
        (4, 1, MAX_MESSAGE_SIZE + 1, HvStatus::InvalidParameter),
        (4, 0x8000_0001, 40, HvStatus::InvalidParameter),
        (4, 2, 40, HvStatus::Success),
        (4, 1, 0, HvStatus::Success),
        (4, 1, 39, HvStatus::Success),
    ] {
        let mut message = contact.clone();
        message.resize(len, 0);
        assert_eq!(
            machine.bus.post_message(port, kind, &message),
            status,
            "{port} {kind:#x} {len}"
        );
        assert_eq!(machine.synic.take(), []);
    }
    assert_eq!(machine.ask(&contact).len(), 1);
}

/// Returns a view of GPADL 5 after the guest has requested its teardown.
fn with_view_in_teardown() -> (Machine, Channel, impl Send + 'static) {
    let (machine, channels, _) = Machine::with_device();
    machine.open(1, 10);
    let channel = channels.recv().unwrap();
    machine.ask(&numbered(5));
    let view = channel.map_gpadl(5, ReadWrite).unwrap();
    assert_eq!(machine.ask(&post::teardown(1, 5)), []);
    (machine, channel, view)
}

#[test]
fn test_view_dropped_on_a_foreign_thread_answers_the_teardown() {
    let (machine, _channel, view) = with_view_in_teardown();
    thread::spawn(move || drop(view)).join().unwrap();
    assert_eq!(machine.replies(), [Reply::Torndown(5)]);
}

#[test]
fn test_view_dropped_while_another_thread_holds_the_bus_answers_the_teardown() {
    let (machine, _channel, view) = with_view_in_teardown();
    let hold = machine.synic.hold_next_message();
    thread::scope(|scope| {
        let other = scope.spawn(|| machine.post(&numbered(6)));
        hold.wait();
        drop(view);
        hold.release();
        other.join().unwrap();
    });
    assert_eq!(machine.replies(), [Reply::created(1, 6), Reply::Torndown(5)]);
}

/// The thread that holds the bus checks the inbox again after releasing it, for messages from any
/// thread.
#[test]
fn test_message_posted_during_signals_and_reports_is_never_left_behind() {
    let (machine, _channels, _) = Machine::with_device();
    let (rounds, start, mut left_behind) = (3000, Barrier::new(2), 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..rounds {
                start.wait();
                for _ in 0..20 {
                    let _ = machine.bus.signal_event(0x2001, 0);
                }
                if round % 16 == 0 {
                    let _ = machine.bus.inspect();
                }
                start.wait();
            }
        });
        for round in 0..rounds {
            start.wait();
            machine.post(&post::modify(1, round));
            start.wait();
            left_behind += usize::from(machine.replies().is_empty());
        }
    });
    assert_eq!(left_behind, 0, "of {rounds}");
}

#[test]
fn test_device_added_while_another_thread_holds_the_bus_is_offered() {
    let (machine, _channels, _) = Machine::with_device();
    let hold = machine.synic.hold_next_message();
    thread::scope(|scope| {
        let other = scope.spawn(|| machine.post(&numbered(6)));
        hold.wait();
        let adding = scope.spawn(|| machine.bus.offer(TestDevice::handing_over(7).0).unwrap());
        hold.release();
        other.join().unwrap();
        adding.join().unwrap();
    });
    let replies = machine.replies();
    assert!(
        matches!(replies[..], [Reply::Created { .. }, Reply::Offer { relid: 2, .. }]),
        "{replies:?}"
    );
}
