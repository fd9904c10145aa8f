//! The device: the registers, and the thread on which the TPM's commands run.

use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use tracing::warn;
use vm_device::DeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};
use vmm_sys_util::eventfd::EventFd;

use crate::emulator::{Emulator, Interrupt};
use crate::error::TpmError;
use crate::registers::{Action, Registers};

/// The thread only copies commands; its deepest call is a log line.
const STACK_BYTES: usize = 256 << 10;

/// A TPM of a machine. Accesses never wait for the TPM: commands run on the device's own thread.
/// Dropping the device powers the TPM off and ends swtpm.
#[derive(Debug)]
pub struct TpmDevice {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The state of a TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TpmState {
    /// No command runs.
    Idle,
    /// A command runs.
    Busy,
    /// The TPM has failed until the machine is started again.
    Failed,
}

/// A report of a TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmReport {
    /// The state.
    pub state: TpmState,
    /// Number of commands that ended with a response.
    pub commands: u64,
    /// Why the TPM has failed.
    pub failure: Option<String>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when `requests` has changed.
    wake: EventFd,
}

#[derive(Debug, Default)]
struct State {
    registers: Registers,
    requests: Requests,
    /// Number of resets. The response of a command from before a reset is dropped.
    generation: u64,
    commands: u64,
    failure: Option<String>,
}

/// The work for the thread, most urgent first.
#[derive(Debug, Default)]
struct Requests {
    quit: bool,
    reset: bool,
    cancel: bool,
    reset_established: bool,
    command: Option<Vec<u8>>,
}

impl TpmDevice {
    /// Starts the thread of a TPM.
    ///
    /// # Errors
    /// No descriptor or thread is available.
    pub fn new(emulator: Emulator) -> io::Result<Self> {
        let wake = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let shared = Arc::new(Shared { state: Mutex::default(), wake });
        shared.state().registers.set_established(emulator.established());
        let worker = Worker { shared: Arc::clone(&shared), emulator };
        let thread = thread::Builder::new()
            .name("tpm".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || worker.run())?;
        Ok(TpmDevice { shared, thread: Some(thread) })
    }

    /// Resets the TPM with its machine. The running command is cancelled and its response dropped;
    /// the guest's first command after the reset waits for that. Does not block.
    pub fn reset(&self) {
        let mut state = self.shared.state();
        state.registers.reset();
        state.generation += 1;
        // A quit is never taken back.
        let quit = state.requests.quit;
        state.requests = Requests { quit, reset: true, ..Requests::default() };
        drop(state);
        self.shared.wake();
    }

    /// Returns a report.
    pub fn report(&self) -> TpmReport {
        let state = self.shared.state();
        let running = if state.registers.is_running() { TpmState::Busy } else { TpmState::Idle };
        TpmReport {
            state: if state.registers.has_failed() { TpmState::Failed } else { running },
            commands: state.commands,
            failure: state.failure.clone(),
        }
    }
}

impl DeviceMmio for TpmDevice {
    fn mmio_read(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        self.shared.state().registers.read(offset, data);
    }

    fn mmio_write(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        let mut state = self.shared.state();
        let Some(action) = state.registers.write(offset, data) else { return };
        match action {
            Action::Run(command) => {
                state.requests.cancel = false;
                state.requests.command = Some(command);
            }
            Action::Cancel => state.requests.cancel = true,
            Action::ResetEstablished => state.requests.reset_established = true,
        }
        drop(state);
        self.shared.wake();
    }
}

impl Drop for TpmDevice {
    fn drop(&mut self) {
        self.shared.state().requests.quit = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It fails only when 2^64 - 2 wake-ups are pending.
        let _ = self.wake.write(1);
    }

    /// Makes the wake-up descriptor unreadable. Requests from before are seen after it.
    fn clear_wake(&self) {
        // It fails when the descriptor is unreadable already.
        let _ = self.wake.read();
    }
}

/// The thread's next work.
enum Work {
    Quit,
    Reset,
    ResetEstablished,
    Run { command: Vec<u8>, generation: u64 },
    Nothing,
}

struct Worker {
    shared: Arc<Shared>,
    emulator: Emulator,
}

impl Worker {
    fn run(mut self) {
        loop {
            let done = match self.next() {
                Work::Quit => {
                    // swtpm is ended in any case.
                    let _ = self.emulator.shutdown();
                    return;
                }
                Work::Reset => self.emulator.power_cycle().map(|()| self.publish_established()),
                Work::ResetEstablished => {
                    self.emulator.reset_established().map(|()| self.publish_established())
                }
                Work::Run { command, generation } => self.execute(&command, generation),
                Work::Nothing => self.emulator.wait(self.shared.wake.as_raw_fd()),
            };
            if let Err(error) = done {
                return self.fail(&error);
            }
        }
    }

    fn next(&self) -> Work {
        self.shared.clear_wake();
        let mut state = self.shared.state();
        let generation = state.generation;
        let requests = &mut state.requests;
        if requests.quit {
            Work::Quit
        } else if mem::take(&mut requests.reset) {
            Work::Reset
        } else if mem::take(&mut requests.reset_established) {
            Work::ResetEstablished
        } else if let Some(command) = requests.command.take() {
            Work::Run { command, generation }
        } else {
            Work::Nothing
        }
    }

    fn execute(&mut self, command: &[u8], generation: u64) -> Result<(), TpmError> {
        let shared = Arc::clone(&self.shared);
        // A cancellation may have been requested before the command is sent.
        shared.wake();
        let interrupted = || {
            shared.clear_wake();
            let requests = &mut shared.state().requests;
            if requests.quit {
                Interrupt::Quit
            } else if requests.reset || mem::take(&mut requests.cancel) {
                // With a reset pending, `cancel` is about a later command.
                Interrupt::Cancel
            } else {
                Interrupt::Wait
            }
        };
        let wake = self.shared.wake.as_raw_fd();
        let Some(response) = self.emulator.execute(command, wake, interrupted)? else {
            return Ok(());
        };
        let mut state = self.shared.state();
        state.commands += 1;
        if state.generation == generation {
            state.registers.complete(&response);
        }
        Ok(())
    }

    fn publish_established(&self) {
        self.shared.state().registers.set_established(self.emulator.established());
    }

    fn fail(self, error: &TpmError) {
        warn!("the guest's TPM has failed until the machine is started again: {error}");
        let mut state = self.shared.state();
        state.registers.fail();
        state.requests = Requests::default();
        state.failure = Some(error.to_string());
    }
}
