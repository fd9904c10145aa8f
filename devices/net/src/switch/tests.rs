use super::*;
use crate::conformance::{Memory, OverSwitch, check, check_stream, frame, receive};
use crate::{Backend, Counters, Queue};

#[test]
fn test_switch_port_does_all_that_a_backend_must() {
    check(|| OverSwitch::new(|port| port));
}

fn send(queue: &mut dyn Queue, bytes: &[u8]) {
    queue.send(&Frame::new(&Memory::whole(bytes).pieces())).unwrap();
}

fn between(to: u8, from: u8) -> Vec<u8> {
    let mut bytes = frame(100, from);
    (bytes[5], bytes[11]) = (to, from);
    bytes
}

#[test]
fn test_switch_of_three_ports_learns_where_addresses_are() {
    let switch = Switch::new(3).unwrap();
    let mut queues: Vec<_> =
        (0..3).map(|port| switch.port(port).unwrap().queue(0).unwrap()).collect();
    let mut arrived = |from: usize, bytes: &[u8]| -> Vec<bool> {
        send(&mut *queues[from], bytes);
        queues
            .iter_mut()
            .map(|queue| match receive(&mut **queue, 100).unwrap() {
                Some(received) => received == bytes,
                None => false,
            })
            .collect()
    };
    let mut to_1_from_0 = between(1, 10);
    to_1_from_0[10] = 1;
    let mut to_0 = between(10, 1);
    to_0[4] = 1;
    assert_eq!(arrived(0, &to_1_from_0), [false, true, true], "unknown: flooded");
    assert_eq!(arrived(1, &to_0), [true, false, false], "known");
    to_0[6] |= 1;
    assert_eq!(arrived(2, &to_0), [true, false, false], "a group address as source");
    to_0[0] = 0xff;
    assert_eq!(arrived(0, &to_0), [false, true, true], "a group address");
    assert!(switch.port(3).is_none());
}

#[test]
fn test_switch_with_a_slow_receiver_drops_and_counts_there() {
    let switch = Switch::new(3).unwrap();
    let mut queues: Vec<_> =
        (0..2).map(|port| switch.port(port).unwrap().queue(0).unwrap()).collect();
    let count = 3 * CAPACITY / 1000;
    for seed in 0..count {
        send(&mut *queues[0], &frame(1000, seed as u8));
    }
    let Counters { sent_frames, full, .. } = queues[0].counters();
    assert_eq!((sent_frames, full), (count as u64, 0));
    let mut received = 0;
    while receive(&mut *queues[1], 1000).unwrap() == Some(frame(1000, received as u8)) {
        received += 1;
    }
    let counters = queues[1].counters();
    assert_eq!(counters.received_frames, received);
    assert_eq!(counters.receive_overflow + received, count as u64);
}

#[test]
fn test_switch_between_threads_misses_no_event() {
    let switch = Switch::new(2).unwrap();
    let mut queues = [0, 1].map(|port| switch.port(port).unwrap().queue(0).unwrap());
    let [from, to] = &mut queues;
    check_stream(&mut **from, &mut **to, false);
}
