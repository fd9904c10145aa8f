//! The machine: construction, start, reset and end.

mod build;
mod clock;
mod control;
mod counters;
mod cpuid;
mod error;
mod events;
mod handle;
mod irqchips;
mod kick;
mod new_vm;
mod platform;
mod run_page;
mod start;
mod state;
mod vcpu;

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use kvm_ioctls::VmFd;
use tracing::{debug, warn};
use vm_device::DeviceMmio;
use vmbus_host::{Synic, VmBus};
use vmm_sys_util::eventfd::EventFd;

use self::control::{Control, Event};
use self::events::Subscriber as EventSubscriber;
use self::handle::{StateCell, lock};
use self::irqchips::Irqchips;
use self::platform::Platform;
use self::vcpu::{Shared, Vcpu};
use crate::acpi;
use crate::boot::{BootSource, Entry};
use crate::devices::serial::{RawTerminal, SerialHub};
use crate::hyperv::{EomWatcher, FreePages, KvmSynic};
use crate::memory::{
    GuestMemory, HotAddSlots, LOW_MMIO, MemoryLayout, PRESENCE_MMIO, TPM_MMIO, WindowMemory,
};
use crate::options::{HypervOption, OnNoBootDevice, OnPanic, OnReset};
use crate::smbios::MachineIdentity;

pub use self::clock::{ClockReading, ReferenceClock};
pub use self::counters::VcpuExits;
pub use self::error::{Exit, MachineError, MachineFailure};
pub use self::events::{EventLoop, Subscriber};
pub use self::handle::{MachineHandle, MachineState};
pub use self::new_vm::new_vm;

/// A machine that has been built. The guest does not run before [`Machine::run`].
pub struct Machine {
    vm: Arc<VmFd>,
    /// The next free KVM memory slot.
    next_slot: u32,
    layout: MemoryLayout,
    /// The kernel that each reset starts; none with firmware.
    source: Option<BootSource>,
    tables: acpi::Platform,
    identity: MachineIdentity,
    hyperv: Vec<HypervOption>,
    on_reset: OnReset,
    on_panic: OnPanic,
    on_no_boot_device: OnNoBootDevice,
    vcpus: Vec<Vcpu>,
    shared: Shared,
    serial_hubs: [SerialHub; 2],
    devices: ResettableDevices,
    inputs: Vec<EventSubscriber>,
    terminal: bool,
    hooks: Vec<Box<dyn FnMut() + Send>>,
    events: EventLoop,
    control: Arc<Control>,
    state: Arc<StateCell>,
    handle: MachineHandle,
}

/// The devices that a reset includes, besides vCPUs and the SynIC.
struct ResettableDevices {
    pm: Arc<crate::devices::pm::PmRegisters>,
    serial: [Arc<crate::devices::serial::SerialPort>; 2],
    ioapic: Option<Arc<crate::devices::ioapic::Ioapic>>,
    chips: Irqchips,
    firmware: Option<crate::firmware::FirmwareDevices>,
    msvm: Option<crate::msvm::MsvmDevices>,
}

impl Machine {
    /// Returns the guest's RAM. Clones share the mapping; regions carry the memfd.
    pub fn memory(&self) -> &GuestMemory {
        &self.shared.memory
    }

    /// Returns the layout of RAM and MMIO windows.
    pub fn layout(&self) -> &MemoryLayout {
        &self.layout
    }

    /// Allocates memory for a device: `bytes` in whole pages, which the guest sees where
    /// [`WindowMemory::place`] puts it.
    ///
    /// # Errors
    /// The host has too little memory or address space.
    pub fn window_memory(&mut self, bytes: usize) -> Result<WindowMemory, MachineError> {
        let (slot, windows) = (self.next_slot, [LOW_MMIO, self.layout.high_mmio]);
        self.next_slot += 1;
        WindowMemory::allocate(Arc::clone(&self.vm), windows, slot, bytes)
            .map_err(MachineError::system("memory of a device"))
    }

    /// Returns the guest's reference time, readable from any thread.
    pub fn reference_clock(&self) -> ReferenceClock {
        ReferenceClock::new(Arc::clone(&self.vm))
    }

    /// Returns what shows added memory to the guest.
    pub fn hot_add_slots(&self) -> HotAddSlots {
        let memory = self.shared.memory.clone();
        HotAddSlots::new(Arc::clone(&self.vm), memory, self.layout.hot_add)
    }

    /// Attaches the receiver of the guest's reports of free pages. Without it, the hypercall for
    /// them does not exist. The guest also needs the enlightenment `extended-hypercalls`.
    pub fn set_free_pages(&mut self, sink: Arc<dyn FreePages>) {
        self.shared.free_pages = Some(sink);
    }

    /// Returns the SynIC, for the bus.
    pub fn synic(&self) -> Arc<dyn Synic> {
        Arc::clone(&self.shared.synic) as Arc<dyn Synic>
    }

    /// Returns the SynIC with its KVM-specific methods.
    pub fn kvm_synic(&self) -> &Arc<KvmSynic> {
        &self.shared.synic
    }

    /// Returns the enlightenments that the guest is offered.
    pub fn hyperv_options(&self) -> &[HypervOption] {
        &self.hyperv
    }

    /// Returns the clients of the serial ports COM1 and COM2.
    pub fn serial_hubs(&self) -> &[SerialHub; 2] {
        &self.serial_hubs
    }

    /// Attaches the bus. Without a bus, every connection id is unknown.
    pub fn set_bus(&mut self, bus: VmBus) {
        self.shared.bus = Some(bus);
    }

    /// Attaches a TPM 2.0 with the registers of a CRB interface: `device` receives the accesses to
    /// its 4 KiB, and the ACPI tables describe it. Firmware finds it by `config`, the content of
    /// the fw_cfg file `etc/tpm/config`. A reset hook must reset it.
    ///
    /// `presence` is the page of the physical presence interface, if the guest may have one. It
    /// exists with such firmware only: without it, requests would have no effect.
    ///
    /// # Errors
    /// The machine has a TPM already.
    pub fn set_tpm(
        &mut self,
        device: Arc<dyn DeviceMmio + Send + Sync>,
        presence: Option<Arc<dyn DeviceMmio + Send + Sync>>,
        config: &[u8],
    ) -> Result<(), MachineError> {
        platform::place(&mut self.shared.buses, |buses| {
            buses.add_mmio(TPM_MMIO.start, TPM_MMIO.len(), device)
        })?;
        self.tables.tpm = Some(TPM_MMIO);
        match self.devices.firmware.as_ref().filter(|firmware| firmware.has_files()) {
            Some(firmware) => {
                if let Some(page) = presence {
                    let window = PRESENCE_MMIO;
                    platform::place(&mut self.shared.buses, |buses| {
                        buses.add_mmio(window.start, window.len(), page)
                    })?;
                    self.tables.presence = Some(window);
                }
                firmware.set_tpm(&self.tables, config)?;
            }
            None => _ = acpi::write(&self.shared.memory, &self.tables)?,
        }
        Ok(())
    }

    /// Adds a hook for each reset. Hooks run in the order of their addition, while all vCPUs are
    /// quiesced and before the SynIC is cleared. The bus's hook closes its channels and waits for
    /// the last access to guest memory.
    pub fn add_reset_hook(&mut self, hook: Box<dyn FnMut() + Send>) {
        self.hooks.push(hook);
    }

    /// Returns the event loop, which runs since the machine was built.
    pub fn events(&self) -> &EventLoop {
        &self.events
    }

    /// Returns the machine's handle.
    pub fn handle(&self) -> MachineHandle {
        self.handle.clone()
    }

    /// Boots the guest and waits until the machine ends. All threads of the machine have ended on
    /// return; guest memory, the SynIC and the bus's threads continue to exist.
    pub fn run(mut self) -> Exit {
        let terminal = if self.terminal && RawTerminal::available() {
            RawTerminal::enter().ok()
        } else {
            None
        };
        if let Err(failure) = self.start_events() {
            return Exit::Failed(failure);
        }
        let shared = Arc::new(self.shared);
        let mut supervisor = Supervisor {
            layout: self.layout,
            source: self.source,
            tables: self.tables,
            identity: self.identity,
            on_reset: self.on_reset,
            on_panic: self.on_panic,
            on_no_boot_device: self.on_no_boot_device,
            devices: self.devices,
            hooks: self.hooks,
            shared: Arc::clone(&shared),
            control: self.control,
            state: self.state,
        };
        let exit = match supervisor.start(self.vcpus) {
            Ok(threads) => {
                let exit = supervisor.supervise();
                let _ = self.handle.stop.write(1);
                supervisor.end(threads).unwrap_or(exit)
            }
            Err(failure) => Exit::Failed(failure),
        };
        supervisor.state.set(MachineState::Ended);
        drop(self.events);
        drop(terminal);
        exit
    }

    fn start_events(&mut self) -> Result<(), MachineFailure> {
        let eom: EventSubscriber = Box::new(EomWatcher::new(Arc::clone(&self.shared.synic)));
        for subscriber in std::iter::once(eom).chain(self.inputs.drain(..)) {
            self.events
                .add(subscriber)
                .map_err(MachineError::system("event loop"))
                .map_err(Box::new)?;
        }
        Ok(())
    }
}

/// The main thread's state while the machine runs.
struct Supervisor {
    layout: MemoryLayout,
    source: Option<BootSource>,
    tables: acpi::Platform,
    identity: MachineIdentity,
    on_reset: OnReset,
    on_panic: OnPanic,
    on_no_boot_device: OnNoBootDevice,
    devices: ResettableDevices,
    hooks: Vec<Box<dyn FnMut() + Send>>,
    shared: Arc<Shared>,
    control: Arc<Control>,
    state: Arc<StateCell>,
}

type Threads = Vec<(u32, JoinHandle<()>)>;

impl Supervisor {
    fn start(&mut self, vcpus: Vec<Vcpu>) -> Result<Threads, MachineFailure> {
        let mut threads = Threads::new();
        for (index, vcpu) in (0..).zip(vcpus) {
            match vcpu::spawn(vcpu, &self.shared) {
                Ok(thread) => threads.push((index, thread)),
                Err(source) => {
                    self.control.quit();
                    for (_, thread) in threads {
                        let _ = thread.join();
                    }
                    return Err(Box::new(MachineError::system("vCPU thread")(source)).into());
                }
            }
        }
        self.control.park();
        self.control.reset();
        self.resume();
        Ok(threads)
    }

    /// Handles events until one of them ends the machine.
    fn supervise(&mut self) -> Exit {
        let mut paused = false;
        loop {
            let event = self.control.wait_event();
            debug!("machine event: {event:?}");
            match event {
                Event::PowerOff => return Exit::PowerOff,
                Event::Stop => return Exit::Stopped,
                Event::Failed(failure) => return Exit::Failed(failure),
                Event::Reset if self.on_reset == OnReset::Exit => return Exit::Reset,
                Event::BootFailure(failure) => match self.on_no_boot_device {
                    OnNoBootDevice::Exit => return Exit::NoBootDevice(failure),
                    OnNoBootDevice::Wait => warn!("no boot device: {failure}"),
                },
                Event::Panic(parameters) => {
                    self.shared.log.crash(&parameters);
                    self.state.set_crash(parameters);
                    match self.on_panic {
                        OnPanic::Exit => return Exit::Panic(parameters),
                        OnPanic::Continue => {}
                        OnPanic::Reboot => {
                            if let Err(failure) = self.reset() {
                                return Exit::Failed(failure);
                            }
                        }
                    }
                }
                Event::Reset | Event::ForcedReset => {
                    if let Err(failure) = self.reset() {
                        return Exit::Failed(failure);
                    }
                }
                Event::Pause => {
                    paused = true;
                    self.control.park();
                    self.state.set(MachineState::Paused);
                }
                Event::Resume => paused = false,
            }
            if !paused {
                self.resume();
            }
        }
    }

    fn resume(&self) {
        self.state.set(MachineState::Running);
        self.control.run();
    }

    fn reset(&mut self) -> Result<(), MachineFailure> {
        self.shared.log.reset();
        self.state.set(MachineState::Resetting);
        self.control.park();
        for hook in &mut self.hooks {
            hook();
        }
        self.shared.synic.reset();
        self.devices.pm.reset();
        for port in &self.devices.serial {
            port.reset();
        }
        if let Some(ioapic) = &self.devices.ioapic {
            ioapic.reset();
        }
        if let Some(firmware) = &self.devices.firmware {
            firmware.reset();
        }
        if let Some(msvm) = &self.devices.msvm {
            msvm.reset();
        }
        self.devices.chips.reset().map_err(Box::new)?;
        self.load()?;
        self.control.reset();
        Ok(())
    }

    /// Loads the kernel, the initrd and the tables into guest memory. Firmware loads its own.
    fn load(&self) -> Result<(), MachineFailure> {
        if let Some(source) = &self.source {
            let memory = &self.shared.memory;
            let (layout, tables, identity) = (&self.layout, &self.tables, &self.identity);
            let entry =
                start::load_kernel(source, memory, layout, tables, identity).map_err(Box::new)?;
            *lock(&self.shared.entry) = Some(entry);
        }
        if let Some(msvm) = &self.devices.msvm {
            let state = msvm
                .source()
                .load(&self.shared.memory, &self.layout, &self.tables, &self.identity)
                .map_err(MachineError::from)
                .map_err(Box::new)?;
            *lock(&self.shared.entry) = Some(Entry::Msvm(state));
        }
        Ok(())
    }

    /// Ends the threads. If a thread has panicked, that replaces the machine's exit.
    fn end(&self, threads: Threads) -> Option<Exit> {
        self.control.quit();
        let mut died = None;
        for (index, thread) in threads {
            if thread.join().is_err() {
                died = died.or(Some(Exit::Failed(MachineFailure::ThreadDied(index))));
            }
        }
        died
    }
}

fn eventfd() -> Result<Arc<EventFd>, MachineError> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
        .map(Arc::new)
        .map_err(MachineError::system("eventfd"))
}

/// The type of a value that is set later, for hooks that need the handle before it exists.
type Late<T> = Arc<Mutex<Option<T>>>;
