//! A vCPU's thread: runs the guest and handles its exits.

use std::io;
use std::sync::Arc;

use kvm_bindings::{KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN};
use kvm_ioctls::VcpuFd;
use tracing::error;
use vm_memory::{Bytes, GuestAddress};

use super::control::{Control, Event};
use super::counters::Counters;
use super::error::MachineFailure;
use super::kick::{Attached, CONTROL, Kicks, MESSAGES};
use super::run_page::{Exit, RunPage};
use super::state::{PowerOnState, read_msrs, write_msr};
use crate::crash::CrashParameters;
use vmbus_host::VmBus;

use crate::boot::Entry;
use crate::devices::Buses;
use crate::devices::ioapic::Ioapic;
use crate::guest_log::MachineLog;
use crate::hyperv::{FreePages, KvmSynic, dispatch, msr};
use crate::memory::GuestMemory;

/// The state that all vCPU threads share.
pub(super) struct Shared {
    pub(super) memory: GuestMemory,
    pub(super) buses: Buses,
    pub(super) synic: Arc<KvmSynic>,
    /// The owner of all message ports.
    pub(super) bus: Option<VmBus>,
    /// The receiver of reports of free pages.
    pub(super) free_pages: Option<Arc<dyn FreePages>>,
    pub(super) control: Arc<Control>,
    pub(super) kicks: Arc<Kicks>,
    pub(super) counters: Arc<[Counters]>,
    /// Present only with a split irqchip.
    pub(super) ioapic: Option<Arc<Ioapic>>,
    /// The entry of the boot processor. The main thread sets it while all vCPUs are parked.
    pub(super) entry: std::sync::Mutex<Option<Entry>>,
    pub(super) log: MachineLog,
}

/// A vCPU and its thread's state.
pub(super) struct Vcpu {
    index: u32,
    fd: VcpuFd,
    page: RunPage,
    power_on: PowerOnState,
}

/// The action after an exit.
enum Next {
    Run,
    Tell(Event),
}

impl Vcpu {
    /// Returns vCPU `index`. `page` is its shared memory, `power_on` its reset state.
    pub(super) fn new(index: u32, fd: VcpuFd, page: RunPage, power_on: PowerOnState) -> Vcpu {
        Vcpu { index, fd, page, power_on }
    }

    /// Runs the vCPU until the machine ends. This is the body of its thread.
    pub(super) fn thread(mut self, shared: &Shared) {
        let index = self.index;
        // SAFETY: the guard is dropped at the end of this function, on this thread.
        let kicked = unsafe { shared.kicks.attach(index, self.page.immediate_exit()) };
        let mut resets = 0;
        // The vCPU parks first: the main thread resets and starts all vCPUs.
        let mut requests = CONTROL;
        loop {
            requests |= kicked.take();
            if requests & CONTROL != 0
                && !shared.control.gate(&mut resets, || self.reset(shared, &kicked))
            {
                return;
            }
            if requests & (CONTROL | MESSAGES) != 0 {
                shared.synic.deliver(index);
            }
            requests = 0;
            match self.run_once(shared) {
                Next::Run => {}
                Next::Tell(event) => {
                    shared.control.post_and_park(event);
                    // Needed if the machine has already parked, because no further kick comes.
                    requests = CONTROL;
                }
            }
        }
    }

    fn reset(&mut self, shared: &Shared, kicked: &Attached<'_>) {
        // The I/O instruction that requested the reset must complete before the registers are
        // replaced.
        kicked.exit_immediately();
        let _ = self.page.run(&self.fd);
        let entry = shared.entry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let entry = entry.filter(|_| self.index == 0);
        if let Err(source) = self.power_on.apply(&self.fd, entry) {
            shared.control.post(Event::Failed(MachineFailure::Run { vcpu: self.index, source }));
        }
    }

    fn run_once(&mut self, shared: &Shared) -> Next {
        let counters = &shared.counters[self.index as usize];
        if let Err(error) = self.page.run(&self.fd) {
            return match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) => {
                    counters.interrupted.add();
                    Next::Run
                }
                _ => {
                    counters.other.add();
                    self.fail(MachineFailure::Run { vcpu: self.index, source: error })
                }
            };
        }
        match self.page.exit() {
            Exit::Port { port, read, size, data } => {
                counters.io.add();
                // With REP, each element is one access.
                for element in data.chunks_exact_mut(size.max(1)) {
                    if read {
                        shared.buses.read_port(port, element);
                    } else {
                        shared.buses.write_port(port, element);
                    }
                }
                Next::Run
            }
            Exit::Memory { address, read, data } => {
                counters.mmio.add();
                if read {
                    shared.buses.read_mmio(address, data);
                } else {
                    shared.buses.write_mmio(address, data);
                }
                Next::Run
            }
            Exit::Synic(state) => {
                counters.msr.add();
                shared.synic.update(self.index, state);
                Next::Run
            }
            Exit::Hypercall { call, result } => {
                match call.input as u16 {
                    0x5C => counters.post_message.add(),
                    0x5D => counters.signal_event.add(),
                    _ => counters.other.add(),
                }
                let free_pages = shared.free_pages.as_ref();
                // KVM does not clear the last result, so each exit must write it.
                *result = dispatch(&shared.memory, &shared.bus, free_pages, call);
                Next::Run
            }
            Exit::OtherHyperv => {
                counters.other.add();
                Next::Run
            }
            Exit::EndOfInterrupt(vector) => {
                counters.other.add();
                if let Some(ioapic) = &shared.ioapic {
                    ioapic.end_of_interrupt(vector);
                }
                Next::Run
            }
            Exit::Msr { index, write, error } => {
                counters.msr.add();
                if write && index == msr::EOM {
                    *error = 0;
                    self.end_of_message(shared);
                } else {
                    // No filter covers other MSRs. The guest gets the fault that it would get
                    // without the exit.
                    *error = 1;
                }
                Next::Run
            }
            Exit::SystemEvent(kind) => {
                counters.other.add();
                self.system_event(kind, &shared.log)
            }
            Exit::Shutdown => {
                counters.other.add();
                shared.log.triple_fault(self.index);
                Next::Tell(Event::Reset)
            }
            Exit::Interrupted => {
                counters.interrupted.add();
                Next::Run
            }
            Exit::Halt => {
                counters.halt.add();
                Next::Run
            }
            Exit::InternalError(suberror) => {
                counters.other.add();
                let failure = self.internal_error(&shared.memory, suberror);
                self.fail(failure)
            }
            Exit::FailEntry(reason) => {
                counters.other.add();
                self.fail(MachineFailure::FailEntry { vcpu: self.index, reason })
            }
            Exit::Unexpected(reason) => {
                counters.other.add();
                self.fail(MachineFailure::UnexpectedExit { vcpu: self.index, reason })
            }
        }
    }

    /// Handles [`crate::hyperv::EomPath::MsrExit`]: performs KVM's part of the write, then the
    /// actions of the eventfd.
    fn end_of_message(&self, shared: &Shared) {
        if let Err(error) = write_msr(&self.fd, msr::EOM, 0) {
            shared.log.eom(self.index, &error);
        }
        shared.synic.end_of_message(self.index);
    }

    fn fail(&self, failure: MachineFailure) -> Next {
        error!("{failure}");
        Next::Tell(Event::Failed(failure))
    }

    fn system_event(&self, kind: u32, log: &MachineLog) -> Next {
        match kind {
            KVM_SYSTEM_EVENT_SHUTDOWN => Next::Tell(Event::PowerOff),
            KVM_SYSTEM_EVENT_RESET => Next::Tell(Event::Reset),
            KVM_SYSTEM_EVENT_CRASH => Next::Tell(Event::Panic(self.crash_parameters())),
            kind => {
                log.system_event(self.index, kind);
                Next::Run
            }
        }
    }

    fn crash_parameters(&self) -> CrashParameters {
        let mut parameters = CrashParameters::default();
        let indices: Vec<u32> = (msr::CRASH_P0..).take(parameters.0.len()).collect();
        for value in read_msrs(&self.fd, &indices) {
            parameters.0[(value.index - msr::CRASH_P0) as usize] = value.data;
        }
        parameters
    }

    fn internal_error(&self, memory: &GuestMemory, suberror: u32) -> MachineFailure {
        let rip = self.fd.get_regs().map_or(0, |regs| regs.rip);
        let mut opcode = vec![0; 15];
        let readable = self
            .fd
            .translate_gva(rip)
            .ok()
            .filter(|translation| translation.valid != 0)
            .is_some_and(|translation| {
                let to_page_end = 4096 - (translation.physical_address % 4096) as usize;
                opcode.truncate(to_page_end);
                memory.read_slice(&mut opcode, GuestAddress(translation.physical_address)).is_ok()
            });
        if !readable {
            opcode.clear();
        }
        MachineFailure::Internal { vcpu: self.index, suberror, rip, opcode }
    }
}

/// Starts the thread of a vCPU.
pub(super) fn spawn(vcpu: Vcpu, shared: &Arc<Shared>) -> io::Result<std::thread::JoinHandle<()>> {
    /// Only touched pages use memory, not reserved ones. Exits nest a few calls deep, a bus's
    /// message a few more.
    const STACK: usize = 512 << 10;
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name(format!("vcpu{}", vcpu.index))
        .stack_size(STACK)
        .spawn(move || vcpu.thread(&shared))
}
