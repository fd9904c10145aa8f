//! Reset, UNLOAD and contact with real workers.

use std::sync::mpsc::channel;
use std::sync::{Barrier, Mutex};
use std::thread;

use vmbus_host::core::ConnectionState;

use crate::common::shell::{Machine, wait};
use crate::common::{Reply, post};

#[test]
fn test_reset_returns_after_every_worker_let_go() {
    let (machine, channels, _) = Machine::with_device();
    machine.open(1, 10);
    let opened = channels.recv().unwrap();
    let order = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let (saw_close, close_seen) = channel();
        let (may_end, end) = channel();
        let order = &order;
        scope.spawn(move || {
            while !opened.is_closing() {
                wait(opened.doorbell());
            }
            saw_close.send(()).unwrap();
            end.recv().unwrap();
            order.lock().unwrap().push("worker");
            drop(opened);
        });
        let resetting = scope.spawn(|| {
            machine.bus.reset();
            order.lock().unwrap().push("reset");
        });
        close_seen.recv().unwrap();
        assert_eq!(machine.bus.inspect().connection, ConnectionState::Resetting);
        may_end.send(()).unwrap();
        resetting.join().unwrap();
    });
    assert_eq!(*order.lock().unwrap(), ["worker", "reset"]);
    assert_eq!(machine.replies(), []);
    machine.synic.wait_until_unbound();
    assert!(machine.bus.inspect().gpadls.is_empty());
    machine.connect();
    machine.open(1, 10);
}

#[test]
fn test_reset_without_anybody_returns() {
    let machine = Machine::new();
    machine.bus.reset();
    machine.bus.reset();
    assert_eq!(machine.synic.take(), []);
}

/// Each caller waits for its own reset, in any order of the requests.
#[test]
fn test_reset_by_many_threads_returns_to_each() {
    let (machine, _channels, _) = Machine::with_device();
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    start.wait();
                    machine.bus.reset();
                }
            });
        }
    });
    machine.connect();
    machine.open(1, 10);
}

// Checklist 28
#[test]
fn test_reset_by_unload_is_answered_by_the_thread_of_the_last_worker() {
    let (machine, channels, _) = Machine::with_device();
    machine.open(1, 10);
    let opened = channels.recv().unwrap();
    assert_eq!(machine.ask(&post::unload()), []);
    thread::spawn(move || drop(opened)).join().unwrap();
    assert_eq!(machine.replies(), [Reply::Unloaded]);
}
