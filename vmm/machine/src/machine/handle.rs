//! What others may do to a running machine.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use super::control::{Control, Event};
use super::counters::{Counters, VcpuExits};
use super::error::CrashParameters;
use crate::devices::pm::PmRegisters;
#[cfg(any(test, feature = "testing"))]
use {
    super::build::escape, super::kick::Kicks, crate::devices::InterruptLine,
    crate::devices::serial::Escape,
};

/// What a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum MachineState {
    /// Built, not started.
    Created,
    /// The guest runs.
    Running,
    /// All vCPUs stand still, by request.
    Paused,
    /// Between two boots of the guest.
    Resetting,
    /// Over.
    Ended,
}

const STATES: [MachineState; 5] = [
    MachineState::Created,
    MachineState::Running,
    MachineState::Paused,
    MachineState::Resetting,
    MachineState::Ended,
];

/// A machine's remote control. Cheap to clone; outlives the machine harmlessly.
#[derive(Clone)]
pub struct MachineHandle {
    pub(super) control: Arc<Control>,
    pub(super) pm: Arc<PmRegisters>,
    pub(super) counters: Arc<[Counters]>,
    pub(super) state: Arc<StateCell>,
    /// Frees a vCPU that waits for the reader of standard output.
    pub(super) stop: Arc<EventFd>,
    /// Called at each stop.
    pub(super) stop_hook: Arc<OnceLock<StopHook>>,
}

/// See [`MachineHandle::set_stop_hook`].
pub(super) type StopHook = Box<dyn Fn() + Send + Sync>;

/// The state, readable from any thread.
#[derive(Default)]
pub(super) struct StateCell {
    state: AtomicU8,
    /// CLOCK_MONOTONIC in microseconds when the vCPUs were let go for the first time; 0 before.
    first_run: AtomicU64,
    crash: Mutex<Option<CrashParameters>>,
}

impl StateCell {
    pub(super) fn set(&self, state: MachineState) {
        self.state.store(state as u8, Ordering::SeqCst);
        if state == MachineState::Running && self.first_run.load(Ordering::Relaxed) == 0 {
            self.first_run.store(monotonic_us(), Ordering::Relaxed);
        }
    }

    /// Notes the guest's crash.
    pub(super) fn set_crash(&self, parameters: CrashParameters) {
        *lock(&self.crash) = Some(parameters);
    }

    fn get(&self) -> MachineState {
        STATES
            .get(usize::from(self.state.load(Ordering::SeqCst)))
            .copied()
            .unwrap_or(MachineState::Ended)
    }
}

/// CLOCK_MONOTONIC, which all processes of a host share: whoever started this program can tell how
/// long that took.
fn monotonic_us() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
}

impl MachineHandle {
    /// Presses the power button: a guest with a running ACPI driver shuts down.
    pub fn power_button(&self) {
        self.pm.press_power_button();
    }

    /// Resets the machine, whatever the policy for the guest's own resets is.
    pub fn reset(&self) {
        self.control.post(Event::ForcedReset);
    }

    /// Ends the machine at once, without asking the guest.
    pub fn stop(&self) {
        let _ = self.stop.write(1);
        self.control.post(Event::Stop);
        if let Some(hook) = self.stop_hook.get() {
            hook();
        }
    }

    /// Sets what is called each time that the machine is told to stop, whoever asks: the control
    /// socket, a signal, or the console. The main thread may be waiting for storage then. The
    /// first hook stays.
    pub fn set_stop_hook(&self, hook: Box<dyn Fn() + Send + Sync>) {
        let _ = self.stop_hook.set(hook);
    }

    /// Stops all vCPUs between two instructions.
    pub fn pause(&self) {
        self.control.post(Event::Pause);
    }

    /// Undoes [`MachineHandle::pause`].
    pub fn resume(&self) {
        self.control.post(Event::Resume);
    }

    /// What the machine is doing.
    pub fn state(&self) -> MachineState {
        self.state.get()
    }

    /// When the vCPUs were let go for the first time: CLOCK_MONOTONIC in microseconds, 0 before.
    pub fn first_run_us(&self) -> u64 {
        self.state.first_run.load(Ordering::Relaxed)
    }

    /// The last crash that the guest reported.
    pub fn crash(&self) -> Option<CrashParameters> {
        *lock(&self.state.crash)
    }

    /// Exits of each vCPU so far.
    pub fn vcpu_exits(&self) -> Vec<VcpuExits> {
        self.counters.iter().map(VcpuExits::from).collect()
    }
}

#[cfg(any(test, feature = "testing"))]
impl MachineHandle {
    /// The handle of a machine whose main thread never gets to its events, and the commands of its
    /// console.
    pub fn hanging() -> (Self, Arc<dyn Fn(Escape) + Send + Sync>) {
        struct NoLine;

        impl InterruptLine for NoLine {
            fn pulse(&self) -> std::io::Result<()> {
                Ok(())
            }

            fn set_level(&self, _high: bool) -> std::io::Result<()> {
                Ok(())
            }
        }

        let control = Arc::new(Control::new(Arc::new(Kicks::new(0).unwrap()), 0));
        let handle = MachineHandle {
            pm: Arc::new(PmRegisters::new(Arc::new(NoLine), Arc::clone(&control) as _)),
            control,
            counters: Arc::new([]),
            state: Arc::default(),
            stop: super::eventfd().unwrap(),
            stop_hook: Arc::default(),
        };
        let console = escape(&Arc::new(Mutex::new(Some(handle.clone()))));
        (handle, console)
    }

    /// Events wait that the main thread has not got to.
    pub fn was_told_to_stop(&self) -> bool {
        matches!(self.control.wait_event(), Event::Stop)
    }
}

/// Locks that a panicking thread held are still good: every change under them is complete in
/// itself.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
