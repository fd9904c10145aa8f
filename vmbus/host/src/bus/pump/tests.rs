//! Tests of visitors: threads that need the state while others work.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::*;

/// Counts events. The first one is handled until a visitor waits.
struct Counting {
    pump: Pump<Counting>,
    first: Sender<()>,
}

impl Shell for Counting {
    type State = usize;
    type Event = ();
    type Job = ();

    fn handle(&self, handled: &mut usize, (): ()) {
        *handled += 1;
        if *handled == 1 {
            self.first.send(()).unwrap();
            while !self.pump.has_visitors() {
                thread::yield_now();
            }
        }
    }

    fn run(&self, (): ()) {}

    fn is_in_job(&self) -> bool {
        false
    }

    fn start_helper(&self) -> bool {
        false
    }
}

#[test]
fn test_visitor_waits_for_the_event_that_is_being_handled_and_for_no_other() {
    let (first, begun) = channel();
    let shell = Counting { pump: Pump::new(0), first };
    shell.pump.queue().events.extend([(); 100]);
    let seen = thread::scope(|scope| {
        scope.spawn(|| shell.pump.settle(&shell, usize::MAX));
        begun.recv().unwrap();
        *shell.pump.visit(&shell)
    });
    assert_eq!(seen, 1);
    assert_eq!(*lock(&shell.pump.state), 100);
}

/// A job that waits for the test, so that a thread is seen to wait for it.
struct Holding {
    pump: Pump<Holding>,
    entered: Sender<()>,
    leave: Mutex<Receiver<()>>,
    done: AtomicUsize,
}

impl Shell for Holding {
    type State = ();
    type Event = ();
    type Job = ();

    fn handle(&self, (): &mut (), (): ()) {
        self.pump.add_job(());
    }

    fn run(&self, (): ()) {
        self.entered.send(()).unwrap();
        lock(&self.leave).recv().unwrap();
        self.done.fetch_add(1, Ordering::SeqCst);
    }

    fn is_in_job(&self) -> bool {
        false
    }

    fn start_helper(&self) -> bool {
        false
    }
}

#[test]
fn test_wait_until_idle_returns_after_the_job_of_a_queued_event() {
    let (entered, has_entered) = channel();
    let (may_leave, leave) = channel();
    let shell = Holding {
        pump: Pump::new(()),
        entered,
        leave: Mutex::new(leave),
        done: AtomicUsize::new(0),
    };
    shell.pump.queue().events.push_back(());
    thread::scope(|scope| {
        scope.spawn(|| shell.pump.settle(&shell, usize::MAX));
        has_entered.recv().unwrap();
        let waiter = scope.spawn(|| {
            shell.pump.wait_until_idle(&shell);
            shell.done.load(Ordering::SeqCst)
        });
        while shell.pump.queue().waiting == 0 {
            thread::yield_now();
        }
        may_leave.send(()).unwrap();
        assert_eq!(waiter.join().unwrap(), 1);
    });
}
