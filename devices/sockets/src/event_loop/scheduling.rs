//! The scheduling policy of the thread: batch (SCHED_BATCH) while data streams to the host, else
//! normal.
//!
//! A guest's doorbell wakes the thread. With the normal policy, a thread that wakes up usually
//! preempts the thread that woke it. If all processors are busy, that is the guest's vCPU: the
//! thread then takes one frame of 4 KiB, sleeps, and the next frame wakes it again. A batch thread
//! preempts no other thread when it wakes up, so the guest first fills its ring. If a processor is
//! idle, the thread runs there immediately, with either policy.
//!
//! A batch thread waits for a processor until another thread sleeps or has used its time slice
//! (milliseconds). That would slow down requests and responses beside a busy guest, so the thread
//! has the normal policy for these. So it has for streams to the guest: with the batch policy they
//! cost as many interrupts and sleeps, and more exits.

use std::time::Duration;

use crate::pump::Load;

/// Consecutive turns of streams after which the thread becomes a batch thread.
const STREAM_TURNS: u32 = 16;

/// A pause in the load after which the thread becomes normal: longer than a batch thread waits for
/// a processor.
const PAUSE: Duration = Duration::from_millis(100);

/// The state of the policy.
#[derive(Debug)]
pub(super) struct Scheduling {
    /// Consecutive turns of streams.
    streams: u32,
    is_batch: bool,
    /// The policy may be changed: the user has not chosen another one.
    is_allowed: bool,
}

impl Scheduling {
    /// Returns the state of the calling thread. A policy other than the normal one stays as it is.
    pub(super) fn of_this_thread() -> Self {
        // SAFETY: no memory is passed. 0 is the calling thread.
        let policy = unsafe { libc::sched_getscheduler(0) };
        Self { streams: 0, is_batch: false, is_allowed: policy == libc::SCHED_OTHER }
    }

    /// Records a turn of a connection. Must be called on the thread of [`Self::of_this_thread`].
    pub(super) fn record(&mut self, load: Load) {
        self.streams = match load {
            Load::Stream => self.streams.saturating_add(1),
            Load::Message => 0,
        };
        self.apply();
    }

    /// Records that the thread had no work for `time`.
    pub(super) fn slept(&mut self, time: Duration) {
        if time > PAUSE {
            self.streams = 0;
            self.apply();
        }
    }

    fn apply(&mut self) {
        let wanted = self.streams >= STREAM_TURNS;
        if wanted == self.is_batch || !self.is_allowed {
            return;
        }
        self.is_batch = wanted;
        let policy = if wanted { libc::SCHED_BATCH } else { libc::SCHED_OTHER };
        let parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: the parameters outlive the call. 0 is the calling thread.
        if unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } != 0 {
            // A sandbox forbids it. Streams are slower on a busy host, and nothing else changes.
            self.is_allowed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn policy() -> libc::c_int {
        // SAFETY: no memory is passed. 0 is the calling thread.
        unsafe { libc::sched_getscheduler(0) }
    }

    /// Runs a test on a thread of its own, whose policy may change.
    fn on_a_thread(test: impl FnOnce() + Send + 'static) {
        thread::spawn(test).join().unwrap();
    }

    #[test]
    fn test_thread_is_batch_after_turns_of_a_stream_and_normal_after_a_message() {
        on_a_thread(|| {
            let mut scheduling = Scheduling::of_this_thread();
            for _ in 0..2 {
                for _ in 0..STREAM_TURNS {
                    assert_eq!(policy(), libc::SCHED_OTHER);
                    scheduling.record(Load::Stream);
                }
                assert_eq!(policy(), libc::SCHED_BATCH);
                scheduling.record(Load::Message);
            }
            assert_eq!(policy(), libc::SCHED_OTHER);
        });
    }

    #[test]
    fn test_thread_is_normal_after_a_pause_and_not_before() {
        on_a_thread(|| {
            let mut scheduling = Scheduling::of_this_thread();
            (0..STREAM_TURNS).for_each(|_| scheduling.record(Load::Stream));
            scheduling.slept(PAUSE);
            assert_eq!(policy(), libc::SCHED_BATCH);
            scheduling.slept(PAUSE + Duration::from_nanos(1));
            assert_eq!(policy(), libc::SCHED_OTHER);
        });
    }

    #[test]
    fn test_policy_that_the_user_chose_stays() {
        on_a_thread(|| {
            let parameters = libc::sched_param { sched_priority: 0 };
            // SAFETY: the parameters outlive the call. 0 is the calling thread.
            let set =
                unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
            assert_eq!(set, 0);
            let mut scheduling = Scheduling::of_this_thread();
            (0..STREAM_TURNS).for_each(|_| scheduling.record(Load::Stream));
            assert_eq!(policy(), libc::SCHED_IDLE);
            scheduling.record(Load::Message);
            assert_eq!(policy(), libc::SCHED_IDLE);
        });
    }
}
