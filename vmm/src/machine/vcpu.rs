//! A vCPU's thread: runs the guest, and does what an exit asks for.

use std::io;
use std::sync::Arc;

use kvm_bindings::{
    KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_HYPERV, KVM_EXIT_HYPERV_HCALL, KVM_EXIT_HYPERV_SYNIC,
    KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR, KVM_EXIT_IO, KVM_EXIT_IO_IN, KVM_EXIT_IOAPIC_EOI, KVM_EXIT_MMIO,
    KVM_EXIT_SHUTDOWN, KVM_EXIT_SYSTEM_EVENT, KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR, KVM_SYSTEM_EVENT_CRASH,
    KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN, kvm_run,
};
use kvm_ioctls::VcpuFd;
use tracing::error;
use vm_memory::{Bytes, GuestAddress};

use super::control::{Control, Event};
use super::counters::Counters;
use super::error::{CrashParameters, MachineFailure};
use super::kick::{Attached, CONTROL, Kicks, MESSAGES};
use super::state::{PowerOnState, read_msrs, write_msr};
use crate::boot::Entry;
use crate::devices::Buses;
use crate::devices::ioapic::Ioapic;
use crate::guest_log::MachineLog;
use crate::hyperv::{HypercallHandler, KvmSynic, SynicState, dispatch, msr};
use crate::memory::GuestMemory;

/// What all vCPU threads share.
pub(super) struct Shared {
    pub(super) memory: GuestMemory,
    pub(super) buses: Buses,
    pub(super) synic: Arc<KvmSynic>,
    pub(super) hypercalls: Arc<dyn HypercallHandler>,
    pub(super) control: Arc<Control>,
    pub(super) kicks: Arc<Kicks>,
    pub(super) counters: Arc<[Counters]>,
    /// Split irqchip only.
    pub(super) ioapic: Option<Arc<Ioapic>>,
    /// Where the boot processor starts; set by the main thread while all vCPUs are parked.
    pub(super) entry: std::sync::Mutex<Option<Entry>>,
    pub(super) log: MachineLog,
}

/// A vCPU and its thread's state.
pub(super) struct Vcpu {
    index: u32,
    fd: VcpuFd,
    power_on: PowerOnState,
}

/// What to do after an exit.
enum Next {
    Run,
    Tell(Event),
}

impl Vcpu {
    /// vCPU `index`; `power_on` is its reset state.
    pub(super) fn new(index: u32, fd: VcpuFd, power_on: PowerOnState) -> Vcpu {
        Vcpu { index, fd, power_on }
    }

    /// The thread's body. Returns when the machine ends.
    pub(super) fn thread(mut self, shared: &Shared) {
        let index = self.index;
        let immediate_exit: *mut u8 = &raw mut self.fd.get_kvm_run().immediate_exit;
        // SAFETY: it points into the vCPU's `kvm_run`, which `self` maps until after the guard is gone.
        let kicked = unsafe { shared.kicks.attach(index, immediate_exit) };
        let mut resets = 0;
        // Parks at once: the main thread resets and starts everybody.
        let mut requests = CONTROL;
        loop {
            requests |= kicked.take();
            if requests & CONTROL != 0 && !shared.control.gate(&mut resets, || self.reset(shared, &kicked)) {
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
                    // Also when the machine is parked already and nobody kicks again.
                    requests = CONTROL;
                }
            }
        }
    }

    fn reset(&mut self, shared: &Shared, kicked: &Attached<'_>) {
        // An I/O instruction that asked for the reset must be finished before registers are replaced.
        kicked.exit_immediately();
        let _ = self.fd.run().map(drop);
        let entry = shared.entry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let entry = entry.filter(|_| self.index == 0);
        if let Err(source) = self.power_on.apply(&self.fd, entry) {
            shared.control.post(Event::Failed(MachineFailure::Run { vcpu: self.index, source }));
        }
    }

    fn run_once(&mut self, shared: &Shared) -> Next {
        let counters = &shared.counters[self.index as usize];
        if let Err(error) = self.fd.run().map(drop) {
            return match error.errno() {
                libc::EINTR | libc::EAGAIN => {
                    counters.interrupted.add();
                    Next::Run
                }
                _ => {
                    counters.other.add();
                    self.fail(MachineFailure::Run { vcpu: self.index, source: error.into() })
                }
            };
        }
        let run = self.fd.get_kvm_run();
        match run.exit_reason {
            KVM_EXIT_IO => {
                counters.io.add();
                port_access(run, &shared.buses);
                Next::Run
            }
            KVM_EXIT_MMIO => {
                counters.mmio.add();
                memory_access(run, &shared.buses);
                Next::Run
            }
            KVM_EXIT_HYPERV => hyperv(self.index, run, shared, counters),
            KVM_EXIT_IOAPIC_EOI => {
                counters.other.add();
                // SAFETY: the exit reason says that this member is the valid one.
                let vector = unsafe { run.__bindgen_anon_1.eoi.vector };
                if let Some(ioapic) = &shared.ioapic {
                    ioapic.end_of_interrupt(vector);
                }
                Next::Run
            }
            KVM_EXIT_X86_RDMSR | KVM_EXIT_X86_WRMSR => {
                let write = run.exit_reason == KVM_EXIT_X86_WRMSR;
                counters.msr.add();
                // SAFETY: the exit reason says that this member is the valid one.
                let exit = unsafe { &mut run.__bindgen_anon_1.msr };
                if write && exit.index == msr::EOM {
                    exit.error = 0;
                    self.end_of_message(shared);
                } else {
                    // Nobody asked for it; the guest gets what it would get without the exit.
                    exit.error = 1;
                }
                Next::Run
            }
            KVM_EXIT_SYSTEM_EVENT => {
                counters.other.add();
                // SAFETY: the exit reason says that this member is the valid one.
                let kind = unsafe { run.__bindgen_anon_1.system_event.type_ };
                self.system_event(kind, &shared.log)
            }
            KVM_EXIT_SHUTDOWN => {
                counters.other.add();
                shared.log.triple_fault(self.index);
                Next::Tell(Event::Reset)
            }
            KVM_EXIT_INTR => {
                counters.interrupted.add();
                Next::Run
            }
            KVM_EXIT_HLT => {
                counters.halt.add();
                Next::Run
            }
            KVM_EXIT_INTERNAL_ERROR => {
                counters.other.add();
                let failure = self.internal_error(&shared.memory);
                self.fail(failure)
            }
            KVM_EXIT_FAIL_ENTRY => {
                counters.other.add();
                // SAFETY: the exit reason says that this member is the valid one.
                let reason = unsafe { run.__bindgen_anon_1.fail_entry.hardware_entry_failure_reason };
                self.fail(MachineFailure::FailEntry { vcpu: self.index, reason })
            }
            reason => {
                counters.other.add();
                self.fail(MachineFailure::UnexpectedExit { vcpu: self.index, reason })
            }
        }
    }

    /// [`crate::hyperv::EomPath::MsrExit`]: does what KVM would have done, then what the eventfd would have told us.
    fn end_of_message(&self, shared: &Shared) {
        if let Err(error) = write_msr(&self.fd, msr::EOM, 0) {
            shared.log.eom(self.index, &error);
        }
        shared.synic.deliver(self.index);
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

    fn internal_error(&mut self, memory: &GuestMemory) -> MachineFailure {
        let run = self.fd.get_kvm_run();
        // SAFETY: the exit reason says that this member is the valid one.
        let suberror = unsafe { run.__bindgen_anon_1.internal.suberror };
        let rip = self.fd.get_regs().map_or(0, |regs| regs.rip);
        let mut opcode = vec![0; 15];
        let readable =
            self.fd.translate_gva(rip).ok().filter(|translation| translation.valid != 0).is_some_and(
                |translation| {
                    let to_page_end = 4096 - (translation.physical_address % 4096) as usize;
                    opcode.truncate(to_page_end);
                    memory.read_slice(&mut opcode, GuestAddress(translation.physical_address)).is_ok()
                },
            );
        if !readable {
            opcode.clear();
        }
        MachineFailure::Internal { vcpu: self.index, suberror, rip, opcode }
    }
}

/// One IN or OUT, with REP one access per element.
fn port_access(run: &mut kvm_run, buses: &Buses) {
    // SAFETY: the exit reason says that this member is the valid one.
    let io = unsafe { run.__bindgen_anon_1.io };
    let (size, count) = (usize::from(io.size), io.count as usize);
    let start: *mut u8 = std::ptr::from_mut(run).cast();
    // SAFETY: KVM puts the data behind `kvm_run`, inside the mapping, `count` elements of `size` bytes; nothing else
    // uses it until the next KVM_RUN.
    let data = unsafe { std::slice::from_raw_parts_mut(start.add(io.data_offset as usize), size * count) };
    for element in data.chunks_exact_mut(size.max(1)) {
        if u32::from(io.direction) == KVM_EXIT_IO_IN {
            buses.read_port(io.port, element);
        } else {
            buses.write_port(io.port, element);
        }
    }
}

/// One load or store outside RAM.
fn memory_access(run: &mut kvm_run, buses: &Buses) {
    // SAFETY: the exit reason says that this member is the valid one.
    let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
    let len = (mmio.len as usize).min(mmio.data.len());
    if mmio.is_write != 0 {
        buses.write_mmio(mmio.phys_addr, &mmio.data[..len]);
    } else {
        buses.read_mmio(mmio.phys_addr, &mut mmio.data[..len]);
    }
}

fn hyperv(vp: u32, run: &mut kvm_run, shared: &Shared, counters: &Counters) -> Next {
    // SAFETY: the exit reason says that this member is the valid one.
    let exit = unsafe { &mut run.__bindgen_anon_1.hyperv };
    match exit.type_ {
        KVM_EXIT_HYPERV_SYNIC => {
            counters.msr.add();
            // SAFETY: the exit's type says that this member is the valid one.
            let synic = unsafe { exit.u.synic };
            let state = SynicState {
                control: synic.control,
                event_page: synic.evt_page,
                message_page: synic.msg_page,
            };
            shared.synic.update(vp, state);
        }
        KVM_EXIT_HYPERV_HCALL => {
            // SAFETY: the exit's type says that this member is the valid one.
            let call = unsafe { &mut exit.u.hcall };
            match call.input as u16 {
                0x5C => counters.post_message.add(),
                0x5D => counters.signal_event.add(),
                _ => counters.other.add(),
            }
            let status = dispatch(&shared.memory, &*shared.hypercalls, vp, call.input, call.params[0]);
            // KVM leaves the last result in place: it must be written each time.
            call.result = status.0.into();
        }
        _ => counters.other.add(),
    }
    Next::Run
}

/// Starts the thread of a vCPU.
pub(super) fn spawn(vcpu: Vcpu, shared: &Arc<Shared>) -> io::Result<std::thread::JoinHandle<()>> {
    /// Touched pages count, not reserved ones; exits nest a few calls deep, a bus's message a few more.
    const STACK: usize = 512 << 10;
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name(format!("vcpu{}", vcpu.index))
        .stack_size(STACK)
        .spawn(move || vcpu.thread(&shared))
}
