//! What a thread that needs the state sees of those that work.

use std::sync::mpsc::{Sender, channel};
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
