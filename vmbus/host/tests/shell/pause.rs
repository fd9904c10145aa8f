//! A paused bus sends no message, and loses none.

use std::sync::{Arc, Mutex};

use vmbus_host::{Channel, Device, Offer, OpenError, ReadWrite};

use crate::common::shell::{Heard, Machine, TestDevice, is_rung};
use crate::common::{Reply, offer, post};

// design 6: messages sent while paused.
#[test]
fn test_messages_that_come_due_while_paused_are_sent_in_order_when_the_bus_resumes() {
    let (machine, channels, _) = Machine::with_device();
    machine.open(1, 10);
    let channel = channels.recv().unwrap();
    for message in post::gpadl(1, 5, &[post::Range::pages(0, 1)]) {
        machine.post(&message);
    }
    let view = channel.map_gpadl(5, ReadWrite).unwrap();
    machine.post(&post::teardown(1, 5));
    machine.synic.take();
    let _ = channel.doorbell().read();

    machine.bus.pause();
    assert!(machine.bus.is_paused());
    // Messages that the guest posted before its vCPUs stopped, a channel that a device closes,
    // devices that are added and removed.
    machine.post(&post::gpadl(1, 6, &[post::Range::pages(0, 1)])[0]);
    drop(view);
    let key = machine.bus.offer(TestDevice::handing_over(7).0).unwrap();
    machine.bus.rescind(key);
    channel.signal();
    assert_eq!(machine.synic.take(), [], "neither message nor event");

    machine.bus.resume();
    assert!(!machine.bus.is_paused());
    let heard = machine.synic.take();
    let Some((Heard::Event { flag: 1, .. }, messages)) = heard.split_last() else {
        panic!("{heard:?}")
    };
    let messages: Vec<_> = messages
        .iter()
        .map(|heard| match heard {
            Heard::Message { reply, .. } => reply.clone(),
            Heard::Event { .. } => panic!("{heard:?}"),
        })
        .collect();
    assert_eq!(messages[..2], [Reply::created(1, 6), Reply::Torndown(5)]);
    assert!(matches!(messages[2], Reply::Offer { relid: 2, .. }) && messages.len() == 4);
    assert!(is_rung(channel.doorbell()), "the device looks once: nobody knows what it missed");
    channel.signal();
    assert_eq!(machine.synic.take().len(), 1, "events flow again");
}

// A guest that connects again while the bus is paused never gets messages held for its predecessor.
#[test]
fn test_messages_held_for_an_old_connection_are_dropped_with_it() {
    let (machine, _channels, _) = Machine::with_device();
    machine.bus.pause();
    machine.post(&post::gpadl(1, 6, &[post::Range::pages(0, 1)])[0]);
    machine.post(&post::unload());
    machine.bus.resume();
    assert_eq!(machine.replies(), [Reply::Unloaded]);
}

/// Records when it was paused.
struct Still {
    log: Arc<Mutex<Vec<&'static str>>>,
    channels: Vec<Channel>,
}

impl Device for Still {
    fn offer(&self) -> Offer {
        offer(0)
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        self.channels.push(channel);
        Ok(())
    }

    fn pause(&mut self) {
        // A worker that still runs may signal and close channels: neither waits.
        self.channels.iter().for_each(Channel::signal);
        self.channels.iter().for_each(|channel| _ = channel.doorbell().read());
        self.log.lock().unwrap().push("pause");
    }

    fn resume(&mut self) {
        assert!(
            self.channels.iter().all(|channel| !is_rung(channel.doorbell())),
            "rung before it may look"
        );
        self.log.lock().unwrap().push("resume");
    }
}

#[test]
fn test_devices_are_paused_and_resumed_once_each_time() {
    let machine = Machine::new();
    let log = Arc::new(Mutex::new(Vec::new()));
    machine.bus.offer(Box::new(Still { log: Arc::clone(&log), channels: Vec::new() })).unwrap();
    machine.connect();
    machine.open(1, 10);
    machine.synic.take();
    for _ in 0..2 {
        machine.bus.pause();
        machine.bus.pause();
        machine.bus.resume();
        machine.bus.resume();
    }
    assert_eq!(*log.lock().unwrap(), ["pause", "resume", "pause", "resume"]);
}
