//! Rate-limited log lines that a guest causes.

use std::sync::atomic::Ordering;

use vmbus_log::testing::expect_limited;
use vmbus_protocol::Version;

use crate::common::post;
use crate::common::shell::{Machine, TestDevice};

#[test]
fn test_log_of_messages_that_are_ignored_is_limited() {
    let machine = Machine::new();
    expect_limited("message", 1000, || machine.post(&[0xFF; 8]));
}

#[test]
fn test_log_of_doorbells_that_cannot_be_bound_is_limited() {
    let machine = Machine::new();
    machine.synic.refuses_doorbells.store(true, Ordering::Relaxed);
    let (device, _channels) = TestDevice::handing_over(0);
    machine.bus.offer(device).unwrap();
    expect_limited("bind", 1000, || {
        machine.post(&post::contact(Version::V5_3.word(), 0));
        machine.post(&post::request_offers());
    });
}

#[test]
fn test_log_of_channels_that_a_device_refuses_is_limited() {
    let machine = Machine::new();
    let refusing = TestDevice::new(0, |_| Err(vmbus_host::OpenError("out of service".to_owned())));
    machine.bus.offer(refusing).unwrap();
    machine.connect();
    machine.post(&post::gpadl(1, 10, &[post::Range::pages(80, 8)])[0]);
    expect_limited("open", 1000, || machine.post(&post::open(1, 10, 4, 0)));
}
