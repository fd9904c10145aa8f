//! Control of the vCPUs: the main thread sets a phase, which each vCPU thread follows before it
//! enters KVM_RUN.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use synthvm_firmware::BootFailure;

use super::error::MachineFailure;
use super::kick::{CONTROL, Kicks};
use crate::crash::CrashParameters;
use crate::devices::{Power, PowerRequest};

/// An event that the main thread must handle.
#[derive(Debug)]
pub(super) enum Event {
    /// The guest requested power-off.
    PowerOff,
    /// The guest requested a reset.
    Reset,
    /// Firmware booted no system.
    BootFailure(BootFailure),
    /// The guest reported a crash.
    Panic(CrashParameters),
    /// A handle requested a reset, which is independent of the policy.
    ForcedReset,
    /// A handle requested the end of the machine.
    Stop,
    /// A handle requested that the vCPUs pause.
    Pause,
    /// A handle requested that the vCPUs resume.
    Resume,
    /// A vCPU cannot continue.
    Failed(MachineFailure),
}

/// Limit of queued events for the main thread, not counting a stop. A guest causes at most one per
/// vCPU, because its vCPUs then park; the others come from users.
const MAX_EVENTS: usize = 256;

/// The phase of the vCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Run,
    Park,
    /// Apply the reset state, once per number; then as [`Phase::Park`].
    Reset(u64),
    Quit,
}

/// The state shared by the main thread, vCPU threads and handles.
pub(super) struct Control {
    inner: Mutex<Inner>,
    changed: Condvar,
    kicks: Arc<Kicks>,
    vcpus: usize,
}

struct Inner {
    phase: Phase,
    parked: usize,
    reset: usize,
    resets: u64,
    events: VecDeque<Event>,
}

impl Control {
    /// Returns the control of `vcpus` vCPUs, all parked.
    pub(super) fn new(kicks: Arc<Kicks>, vcpus: u32) -> Control {
        let inner =
            Inner { phase: Phase::Park, parked: 0, reset: 0, resets: 0, events: VecDeque::new() };
        Control { inner: Mutex::new(inner), changed: Condvar::new(), kicks, vcpus: vcpus as usize }
    }

    /// Queues an event for the main thread. A stop goes to the front and is never lost: resets can
    /// take as long as the host's storage.
    pub(super) fn post(&self, event: Event) {
        let mut inner = self.lock();
        if let Event::Stop = event {
            if !matches!(inner.events.front(), Some(Event::Stop)) {
                inner.events.push_front(event);
            }
        } else if inner.events.len() < MAX_EVENTS {
            inner.events.push_back(event);
        }
        self.changed.notify_all();
    }

    /// Queues an event for the main thread. No vCPU may run until the main thread has handled it.
    pub(super) fn post_and_park(&self, event: Event) {
        let mut inner = self.lock();
        if inner.phase == Phase::Run {
            inner.phase = Phase::Park;
        }
        drop(inner);
        self.kicks.request_all(CONTROL);
        self.post(event);
    }

    /// Waits for an event. Called by the main thread.
    pub(super) fn wait_event(&self) -> Event {
        let mut inner = self.lock();
        loop {
            if let Some(event) = inner.events.pop_front() {
                return event;
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Stops all vCPUs between two instructions and waits until they are parked. Called by the main
    /// thread.
    pub(super) fn park(&self) {
        self.lock().phase = Phase::Park;
        self.kicks.request_all(CONTROL);
        let mut inner = self.lock();
        while inner.parked < self.vcpus {
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets the vCPUs run. Called by the main thread.
    pub(super) fn run(&self) {
        self.lock().phase = Phase::Run;
        self.changed.notify_all();
    }

    /// Makes every (parked) vCPU apply its reset state. Drops earlier requests. Called by the main
    /// thread.
    pub(super) fn reset(&self) {
        let mut inner = self.lock();
        inner.reset = 0;
        inner.resets += 1;
        inner.phase = Phase::Reset(inner.resets);
        self.changed.notify_all();
        while inner.reset < self.vcpus {
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.phase = Phase::Park;
        inner.events.retain(|event| {
            let from_guest = matches!(
                event,
                Event::Reset | Event::PowerOff | Event::Panic(_) | Event::BootFailure(_)
            );
            !from_guest
        });
    }

    /// Ends all vCPU threads. Called by the main thread.
    pub(super) fn quit(&self) {
        let mut inner = self.lock();
        inner.phase = Phase::Quit;
        drop(inner);
        self.changed.notify_all();
        self.kicks.request_all(CONTROL);
    }

    /// Follows the phase, and calls `reset` when a reset is due. Returns whether to continue.
    /// Called by a vCPU thread.
    pub(super) fn gate(&self, seen: &mut u64, mut reset: impl FnMut()) -> bool {
        let mut inner = self.lock();
        inner.parked += 1;
        self.changed.notify_all();
        loop {
            match inner.phase {
                Phase::Run => {
                    inner.parked -= 1;
                    return true;
                }
                Phase::Quit => return false,
                Phase::Reset(number) if number != *seen => {
                    drop(inner);
                    reset();
                    *seen = number;
                    inner = self.lock();
                    inner.reset += 1;
                    self.changed.notify_all();
                }
                Phase::Reset(_) | Phase::Park => {
                    inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Power for Control {
    fn request(&self, request: PowerRequest) {
        self.post_and_park(match request {
            PowerRequest::PowerOff => Event::PowerOff,
            PowerRequest::Reset => Event::Reset,
            PowerRequest::BootFailure(failure) => Event::BootFailure(failure),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn test_park_reset_run_quit_reach_every_vcpu() {
        const VCPUS: u32 = 4;
        let control = Control::new(Arc::new(Kicks::new(VCPUS).unwrap()), VCPUS);
        let resets = AtomicU32::new(0);
        let runs = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..VCPUS {
                scope.spawn(|| {
                    let mut seen = 0;
                    while control.gate(&mut seen, || _ = resets.fetch_add(1, Ordering::SeqCst)) {
                        runs.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                    }
                });
            }
            control.park();
            for round in 1..=10 {
                control.reset();
                assert_eq!(resets.load(Ordering::SeqCst), round * VCPUS);
                control.run();
                control.park();
            }
            control.quit();
        });
    }

    #[test]
    fn test_reset_forgets_requests_from_before_but_not_stop() {
        let control = Control::new(Arc::new(Kicks::new(0).unwrap()), 0);
        control.post(Event::Reset);
        control.post(Event::BootFailure(BootFailure::NoOption));
        control.post(Event::Stop);
        control.post(Event::PowerOff);
        control.reset();
        assert!(matches!(control.wait_event(), Event::Stop));
        assert!(control.lock().events.is_empty());
    }

    #[test]
    fn test_stop_comes_before_any_number_of_other_events_and_counts_once() {
        let control = Control::new(Arc::new(Kicks::new(0).unwrap()), 0);
        (0..=MAX_EVENTS).for_each(|_| control.post(Event::ForcedReset));
        assert_eq!(control.lock().events.len(), MAX_EVENTS, "one past the limit is dropped");
        control.post(Event::Stop);
        control.post(Event::Stop);
        assert_eq!(control.lock().events.len(), MAX_EVENTS + 1);
        assert!(matches!(control.wait_event(), Event::Stop));
        assert!(matches!(control.wait_event(), Event::ForcedReset));
    }
}
