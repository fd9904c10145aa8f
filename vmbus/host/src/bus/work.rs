//! The pump's work on a bus: handling events and running jobs.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::thread;

use tracing::warn;

use super::pump::{OTHER_WORK, Shell};
use super::state::{Event, Inner, Job, State};
use crate::core::ChannelKey;

/// Stack of the bus's short-lived threads: a message's actions and a device's `open` nest a few
/// calls deep.
const THREAD_STACK: usize = 512 << 10;

thread_local! {
    /// This thread calls a device.
    static IN_JOB: Cell<bool> = const { Cell::new(false) };
}

impl Shell for Inner {
    type State = State;
    type Event = Event;
    type Job = Job;

    fn handle(&self, state: &mut State, event: Event) {
        match event {
            Event::Message { connection_id, message } => {
                self.queued_messages.fetch_sub(1, Ordering::Relaxed);
                let bytes = message.bytes.get(..message.len).unwrap_or_default();
                self.handle_message(state, connection_id, bytes);
                return;
            }
            Event::Opened(opening) => self.handle_opened(state, opening),
            Event::Closed { key, serial } => self.handle_closed(state, key, serial),
            Event::Released(key) => state.core.gpadl_released(key),
            Event::Subchannels { key, serial } => Self::handle_subchannels(state, key, serial),
        }
        self.act(state);
    }

    fn run(&self, job: Job) {
        match job {
            Job::Open(request) => self.start_open(*request),
            Job::Unbind { connection_id } => {
                if let Err(error) = self.doorbells.unbind(&*self.synic, connection_id) {
                    self.log_slow_doorbell(connection_id, &error);
                }
            }
            Job::Drop(device) => drop(device),
        }
    }

    fn is_in_job(&self) -> bool {
        IN_JOB.get()
    }

    fn start_helper(&self) -> bool {
        self.spawn("bus", (), |bus, ()| bus.pump.help(bus)).is_ok()
    }
}

impl Inner {
    pub(super) fn push(&self, event: Event) {
        self.pump.queue().events.push_back(event);
        self.pump.settle(self, OTHER_WORK);
    }

    /// Handles the events that are queued now. The machine's vCPUs must not run, so that they
    /// cannot add more.
    pub(super) fn handle_queued(&self, state: &mut State) {
        let queued = self.pump.queue().events.len();
        for _ in 0..queued {
            // In its own statement: the queue is free while the event is handled.
            let event = self.pump.queue().events.pop_front();
            if let Some(event) = event {
                self.handle(state, event);
            }
        }
    }

    /// Handles the end of a channel. Ignored unless the device has the channel with this serial
    /// number.
    pub(super) fn handle_closed(&self, state: &mut State, key: ChannelKey, serial: u64) {
        let link = state.links.get_mut(&key);
        let ended = link.and_then(|link| link.open.take_if(|open| open.serial == serial));
        if let Some(ended) = ended {
            ended.forget_signal();
            state.core.closed(key);
        }
    }

    /// Runs `task` on a thread of its own. Returns it if the system has no thread.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        task: T,
        run: fn(&Inner, T),
    ) -> Result<(), T> {
        let Some(bus) = self.link.0.upgrade() else { return Err(task) };
        // The task is handed over when the thread exists, so that it is not lost without one.
        let (give, take) = std::sync::mpsc::sync_channel::<T>(1);
        let body = move || {
            if let Ok(task) = take.recv() {
                run(&bus, task);
            }
        };
        match thread::Builder::new().name(name.to_owned()).stack_size(THREAD_STACK).spawn(body) {
            Ok(_) => give.send(task).map_err(|returned| returned.0),
            Err(error) => {
                self.failed_opens
                    .log(|suppressed| warn!(%error, suppressed, "no thread for the bus"));
                Err(task)
            }
        }
    }
}

/// Marks this thread as calling a device, until it is dropped. The device must not be called again
/// in the meantime.
pub(super) struct InJob(bool);

impl InJob {
    pub(super) fn begin() -> Self {
        Self(IN_JOB.replace(true))
    }
}

impl Drop for InJob {
    fn drop(&mut self) {
        IN_JOB.set(self.0);
    }
}
