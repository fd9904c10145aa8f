//! Control of a running machine from other threads.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use super::control::{Control, Event};
use super::counters::{Counters, VcpuExits};
use crate::crash::CrashParameters;
use crate::devices::pm::PmRegisters;
use crate::devices::serial::Escape;
use crate::generation::Generation;
#[cfg(any(test, feature = "testing"))]
use {super::kick::Kicks, crate::devices::InterruptLine};

/// The state of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum MachineState {
    /// Built, not started.
    Created,
    /// The guest runs.
    Running,
    /// All vCPUs are paused on request.
    Paused,
    /// Between two boots of the guest.
    Resetting,
    /// The machine has ended.
    Ended,
}

impl std::fmt::Display for MachineState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            MachineState::Created => "created",
            MachineState::Running => "running",
            MachineState::Paused => "paused",
            MachineState::Resetting => "resetting",
            MachineState::Ended => "ended",
        })
    }
}

const STATES: [MachineState; 5] = [
    MachineState::Created,
    MachineState::Running,
    MachineState::Paused,
    MachineState::Resetting,
    MachineState::Ended,
];

/// A remote control of a machine. It is cheap to clone, and has no effect after the machine's end.
#[derive(Clone)]
pub struct MachineHandle {
    pub(super) control: Arc<Control>,
    pub(super) pm: Arc<PmRegisters>,
    /// Absent in tests without a machine.
    pub(super) generation: Option<Arc<Generation>>,
    pub(super) counters: Arc<[Counters]>,
    pub(super) state: Arc<StateCell>,
    /// Signalled to end the wait of a vCPU for the reader of standard output.
    pub(super) stop: Arc<EventFd>,
    /// Called at each stop; see [`MachineHandle::set_stop_hook`].
    pub(super) stop_hook: Arc<OnceLock<StopHook>>,
}

/// The type of a stop hook.
pub(super) type StopHook = Box<dyn Fn() + Send + Sync>;

/// The state of a machine, readable from any thread.
#[derive(Default)]
pub(super) struct StateCell {
    state: AtomicU8,
    /// Time of the vCPUs' first start: CLOCK_MONOTONIC in microseconds, 0 before.
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

    /// Records the guest's crash.
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

/// Returns CLOCK_MONOTONIC in microseconds. All processes of a host share this clock, so the parent
/// process can measure the start of this program.
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

    /// Gives the machine a new, random generation id, and notifies the guest: its state was copied
    /// or taken back. Call this before the vCPUs run for the first time after that, so that no
    /// guest program runs with the old id. Pause, resume and reset keep the id.
    ///
    /// # Errors
    /// The host has no random numbers, or the machine's memory failed.
    pub fn renew_generation(&self) -> std::io::Result<()> {
        self.generation.as_ref().map_or(Ok(()), |generation| generation.renew())
    }

    /// Resets the machine, independent of the policy for the guest's own resets.
    pub fn reset(&self) {
        self.control.post(Event::ForcedReset);
    }

    /// Ends the machine immediately, without asking the guest.
    pub fn stop(&self) {
        let _ = self.stop.write(1);
        self.control.post(Event::Stop);
        if let Some(hook) = self.stop_hook.get() {
            hook();
        }
    }

    /// Sets a function that is called at each request to stop, from the control socket, a signal,
    /// or the console. The main thread may be blocked on storage at that time. Only the first call
    /// has an effect.
    pub fn set_stop_hook(&self, hook: Box<dyn Fn() + Send + Sync>) {
        let _ = self.stop_hook.set(hook);
    }

    /// Stops all vCPUs between two instructions.
    pub fn pause(&self) {
        self.control.post(Event::Pause);
    }

    /// Lets the vCPUs run again after [`MachineHandle::pause`].
    pub fn resume(&self) {
        self.control.post(Event::Resume);
    }

    /// Returns the state of the machine.
    pub fn state(&self) -> MachineState {
        self.state.get()
    }

    /// Returns the time of the vCPUs' first start: CLOCK_MONOTONIC in microseconds, 0 before.
    pub fn first_run_us(&self) -> u64 {
        self.state.first_run.load(Ordering::Relaxed)
    }

    /// Returns the last crash that the guest reported.
    pub fn crash(&self) -> Option<CrashParameters> {
        *lock(&self.state.crash)
    }

    /// Returns the exits of each vCPU so far.
    pub fn vcpu_exits(&self) -> Vec<VcpuExits> {
        self.counters.iter().map(VcpuExits::from).collect()
    }
}

#[cfg(any(test, feature = "testing"))]
impl MachineHandle {
    /// Returns the handle of a machine whose main thread never handles its events, and the handler
    /// of its console's commands.
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
            generation: None,
            control,
            counters: Arc::new([]),
            state: Arc::default(),
            stop: super::eventfd().unwrap(),
            stop_hook: Arc::default(),
        };
        let console = escape(&Arc::new(Mutex::new(Some(handle.clone()))));
        (handle, console)
    }

    /// Returns whether the first queued event is a stop. Waits for an event.
    pub fn is_stop_queued(&self) -> bool {
        matches!(self.control.wait_event(), Event::Stop)
    }
}

/// Returns the handler of the terminal's commands. They need the machine's handle, which is made
/// last.
pub(super) fn escape(
    late: &Arc<Mutex<Option<MachineHandle>>>,
) -> Arc<dyn Fn(Escape) + Send + Sync> {
    let late = Arc::clone(late);
    Arc::new(move |command| {
        if let Some(handle) = &*lock(&late) {
            match command {
                Escape::Stop => handle.stop(),
                Escape::PowerButton => handle.power_button(),
                Escape::Reset => handle.reset(),
            }
        }
    })
}

/// Locks a mutex, even after a panic of its holder: every change under these locks is complete in
/// itself.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
