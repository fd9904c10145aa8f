//! A helper thread for calls that may block. It exists only while it has tasks.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Stack of the thread in bytes, as for a storage worker.
const STACK: usize = 256 << 10;

type Task = Box<dyn FnOnce() + Send>;

/// Runs tasks one after another on a helper thread. Tasks that are queued when it is dropped still
/// run.
#[derive(Clone, Default)]
pub(crate) struct Helper {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    /// The thread exists, and will check `tasks` before it ends.
    is_running: bool,
}

impl Helper {
    /// Queues `task`. Never blocks. If a task panics, the next one still runs.
    ///
    /// # Errors
    /// The thread could not be created. The task is dropped.
    pub(crate) fn run(&self, task: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut state = self.lock();
        if !state.is_running {
            let helper = self.clone();
            thread::Builder::new()
                .name("disk-lookup".to_owned())
                .stack_size(STACK)
                .spawn(move || helper.serve())?;
            state.is_running = true;
        }
        state.tasks.push_back(Box::new(task));
        Ok(())
    }

    fn serve(&self) {
        while let Some(task) = self.next() {
            // The panic hook has logged the panic.
            let _ = catch_unwind(AssertUnwindSafe(task));
        }
    }

    /// Returns the next task. `None`: the queue is empty, and the thread must end.
    fn next(&self) -> Option<Task> {
        let mut state = self.lock();
        let next = state.tasks.pop_front();
        state.is_running = next.is_some();
        next
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Helper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Helper")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn test_helper_runs_tasks_in_order_and_begins_again_after_it_ended() {
        let helper = Helper::default();
        let (tell, told) = mpsc::channel();
        for round in 0..3 {
            for number in 0..10 {
                let tell = tell.clone();
                helper.run(move || tell.send((round, number)).unwrap()).unwrap();
            }
            for number in 0..10 {
                assert_eq!(told.recv().unwrap(), (round, number));
            }
            while helper.lock().is_running {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn test_helper_survives_a_task_that_panics() {
        let helper = Helper::default();
        let (tell, told) = mpsc::channel();
        helper.run(|| panic!("as tested")).unwrap();
        helper.run(move || tell.send(1).unwrap()).unwrap();
        assert_eq!(told.recv().unwrap(), 1);
    }
}
