//! The pump under a model checker: in every interleaving of threads that bring work, visit the
//! state and hand over, no work is left when all of them have ended.

use std::sync::atomic::AtomicUsize as PlainUsize;

use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

use super::*;

/// Counts the executed work.
struct Model {
    pump: Pump<Shared>,
    jobs: AtomicUsize,
    helpers: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Clone)]
struct Shared(Arc<Model>);

/// Number of helpers that ran in all interleavings. Without any, the models prove nothing.
static HELPERS: PlainUsize = PlainUsize::new(0);

impl Shell for Shared {
    /// Events handled.
    type State = usize;
    /// True if a job follows from the event.
    type Event = bool;
    type Job = ();

    fn handle(&self, handled: &mut usize, job: bool) {
        *handled += 1;
        if job {
            self.0.pump.add_job(());
        }
    }

    fn run(&self, (): ()) {
        self.0.jobs.fetch_add(1, Ordering::SeqCst);
    }

    fn is_in_job(&self) -> bool {
        false
    }

    fn start_helper(&self) -> bool {
        HELPERS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let shell = self.clone();
        let helper = thread::spawn(move || shell.0.pump.help(&shell));
        self.0.helpers.lock().unwrap().push(helper);
        true
    }
}

impl Shared {
    fn new() -> Self {
        let model = Model {
            pump: Pump::new(0),
            jobs: AtomicUsize::new(0),
            helpers: Mutex::new(Vec::new()),
        };
        Self(Arc::new(model))
    }

    /// Works as a vCPU or a worker does, with a budget of `work`.
    fn bring(&self, job: bool, work: usize) {
        self.0.pump.queue().events.push_back(job);
        self.0.pump.settle(self, work);
    }

    /// As [`Shared::bring`], in another thread.
    fn bring_in_thread(&self, job: bool, work: usize) -> thread::JoinHandle<()> {
        let shell = self.clone();
        thread::spawn(move || shell.bring(job, work))
    }

    /// Joins the helpers and checks the counts, after all other threads have ended.
    fn check(&self, events: usize, jobs: usize) {
        loop {
            let helper = self.0.helpers.lock().unwrap().pop();
            let Some(helper) = helper else { break };
            helper.join().unwrap();
        }
        assert!(self.0.pump.queue().is_empty(), "work is stranded");
        assert!(!self.0.pump.queue().helper);
        assert_eq!((*lock(&self.0.pump.state), self.0.jobs.load(Ordering::SeqCst)), (events, jobs));
    }
}

fn check(body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    // Without a bound the models take hours; a fault shows with one or two preemptions.
    model.preemption_bound = Some(2);
    model.check(body);
}

#[test]
fn test_model_threads_that_may_do_little_leave_nothing_behind() {
    check(|| {
        let shell = Shared::new();
        let other = shell.bring_in_thread(true, 1);
        shell.bring(false, 1);
        shell.bring(false, 0);
        other.join().unwrap();
        shell.check(3, 1);
    });
    assert!(HELPERS.load(std::sync::atomic::Ordering::Relaxed) != 0);
}

#[test]
fn test_model_visitor_that_held_the_state_sees_what_came_meanwhile() {
    check(|| {
        let shell = Shared::new();
        let other = shell.bring_in_thread(true, 2);
        *shell.0.pump.visit(&shell) += 10;
        other.join().unwrap();
        shell.check(11, 1);
    });
}

#[test]
fn test_model_thread_that_enters_an_idle_bus_sees_what_came_meanwhile() {
    check(|| {
        let shell = Shared::new();
        let other = shell.bring_in_thread(false, 1);
        let entered = shell.0.pump.enter(&shell, 1).map(|mut state| *state += 10).is_some();
        if !entered {
            shell.0.pump.settle(&shell, 1);
        }
        other.join().unwrap();
        shell.check(if entered { 11 } else { 1 }, 0);
    });
}

#[test]
fn test_model_thread_that_waits_until_idle_sees_its_work_done() {
    check(|| {
        let shell = Shared::new();
        let other = shell.bring_in_thread(false, 1);
        // With a budget of 0, a helper or the other thread does the work.
        shell.bring(true, 0);
        shell.0.pump.wait_until_idle(&shell);
        assert!(*lock(&shell.0.pump.state) != 0);
        assert_eq!(shell.0.jobs.load(Ordering::SeqCst), 1);
        other.join().unwrap();
        shell.check(2, 1);
    });
}
