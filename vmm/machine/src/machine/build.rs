//! Building a machine: first the checks, then KVM in the order that its Hyper-V support requires
//! (spec section 5.1).

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex};

use kvm_bindings::{
    CpuId, KVM_CAP_HYPERV_ENFORCE_CPUID, KVM_CAP_HYPERV_SYNIC2, KVM_CAP_IMMEDIATE_EXIT,
    KVM_CAP_IRQFD, KVM_CAP_IRQFD_RESAMPLE, KVM_CAP_READONLY_MEM, KVM_CAP_SPLIT_IRQCHIP,
    KVM_CAP_TSC_DEADLINE_TIMER, KVM_CAP_X86_MSR_FILTER, KVM_CAP_X86_USER_SPACE_MSR,
    KVM_MAX_CPUID_ENTRIES, KVM_MSR_EXIT_REASON_FILTER, KVM_PIT_SPEAKER_DUMMY, kvm_cpuid_entry2,
    kvm_enable_cap, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VcpuFd, VmFd};
use tracing::warn;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap};
use vmbus_protocol::Guid;

use super::control::Control;
use super::counters::Counters;
use super::cpuid::{Template, address_bits};
use super::handle::{StateCell, escape, lock};
use super::irqchips::Irqchips;
use super::kick::Kicks;
use super::new_vm::new_vm;
use super::platform::{self, Wiring};
use super::run_page::RunPage;
use super::start::Start;
use super::state::{PowerOnState, msr_list, write_msr};
use super::vcpu::{Shared, Vcpu};
use super::{
    EventLoop, Late, Machine, MachineError, MachineHandle, Platform, ResettableDevices, eventfd,
};
use crate::acpi;
use crate::boot::{self, BootMsr};
use crate::firmware::{CloudHvSource, FirmwareDevices, FirmwareError};
use crate::generation::{self, Generation, Place};
use crate::guest_log::MachineLog;
use crate::hyperv::{self, EomPath, HypervCpuid, KickVp, KvmSynic, Offer};
use crate::irq::{IOAPIC_PINS, Routes};
use crate::memory::{
    self, GENERATION_MMIO, GuestMemory, IDENTITY_MAP_BASE, LOW_MMIO, MemoryLayout, TSS_BASE,
};
use crate::msvm::{self, MsvmDevices};
use crate::options::{IrqchipMode, MAX_CPUS, MachineConfig};
use crate::smbios::MachineIdentity;

/// KVM's API version since 2007.
const KVM_API_VERSION: i32 = 12;

/// The first KVM memory slot of devices. RAM uses the first two, firmware 8 to 10, the generation
/// id 11, and added memory those from 64 on.
const FIRST_WINDOW_SLOT: u32 = 16;

impl Machine {
    /// Builds the machine from `config`.
    ///
    /// # Errors
    /// [`MachineError`] for every invalid option that the machine uses, before the guest runs. A
    /// failed call leaves nothing behind.
    pub fn build(config: &MachineConfig) -> Result<Machine, MachineError> {
        let cpus = u32::from(config.cpus);
        // Checks that need no KVM come first, so that a wrong file name is reported on any host.
        let start = Start::open(config)?;
        let hot_add = config.max_memory_bytes.saturating_sub(config.memory_bytes);
        let layout = MemoryLayout::with_hot_add(config.memory_bytes, hot_add);

        let kvm = open(config)?;
        let offer = Offer::of(&kvm);
        let options = offer.choose(&config.hyperv)?;
        let supported =
            kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(MachineError::kvm("CPUID"))?;
        check_limits(&kvm, cpus, &layout, supported.as_slice())?;

        let memory = memory::allocate(&layout, config.hugepages)?;
        let tables = acpi::Platform {
            apic_ids: (0..cpus).collect(),
            legacy_timer: config.irqchip == IrqchipMode::Full,
            mmio: [LOW_MMIO, layout.high_mmio],
            pci: config.firmware.as_ref().map(|_| layout.pci_window()),
            tpm: None,
            presence: None,
            // MSVM has its own tables.
            generation: config.msvm.is_none().then_some(GENERATION_MMIO),
            hot_add: (!layout.hot_add.is_empty()).then_some(layout),
            hibernation: config.hibernation,
        };
        let generation_id = match config.generation_id {
            Some(id) => id,
            None => generation::random().map_err(MachineError::system("random numbers"))?,
        };
        let identity =
            MachineIdentity { uuid: Guid::from_bytes(config.uuid), texts: config.smbios.clone() };
        let entry = start.load(&memory, &layout, &tables, &identity)?;
        let vm = Arc::new(create_vm(&kvm, config.irqchip)?);
        map_memory(&vm, &memory, &layout)?;
        let mut msvm = None;
        let (source, firmware) = match (start, &config.firmware) {
            (Start::Kernel(source), _) => (Some(source), None),
            (Start::CloudHv(source), _) => {
                let CloudHvSource { image, option_rom, .. } = *source;
                let devices = FirmwareDevices::cloudhv(option_rom, &vm, &layout)?;
                (Some(image), Some(devices))
            }
            (Start::Msvm(source), _) => {
                let Some(msvm_config) = &config.msvm else {
                    return Err(MachineError::NothingToStart);
                };
                msvm = Some(MsvmDevices::new(msvm_config, source, &memory, generation_id)?);
                (None, None)
            }
            (Start::Firmware(source), Some(firmware)) => {
                if !has(&kvm, KVM_CAP_READONLY_MEM) {
                    return Err(FirmwareError::NoReadOnlyMemory.into());
                }
                let source = *source;
                let devices = FirmwareDevices::new(
                    firmware, source, &vm, &memory, &layout, &tables, &identity,
                )?;
                (None, Some(devices))
            }
            (Start::Firmware(_), None) => return Err(MachineError::NothingToStart),
        };
        let chips = Irqchips::record(&vm, config.irqchip)?;

        let hyperv_leaves = hyperv::leaves(&HypervCpuid {
            offer: &offer,
            options: &options,
            max_vps: MAX_CPUS.into(),
        });
        let template = Template {
            supported: supported.as_slice(),
            hyperv: &hyperv_leaves,
            cpus,
            tsc_deadline: has(&kvm, KVM_CAP_TSC_DEADLINE_TIMER),
        };
        let boot_msrs = match &msvm {
            Some(_) => msvm::boot_msrs(&layout, address_bits(supported.as_slice())),
            None => boot::boot_msrs(firmware.is_some()).to_vec(),
        };
        let vcpus = create_vcpus(&kvm, &vm, &template, &boot_msrs)?;

        let kicks = Arc::new(Kicks::new(cpus).map_err(MachineError::system("kick signal"))?);
        let control = Arc::new(Control::new(Arc::clone(&kicks), cpus));
        let routes = Arc::new(Routes::new(Arc::clone(&vm), config.irqchip));
        let kicker: Arc<dyn KickVp> = kicks.clone();
        let eom_path = match config.irqchip {
            IrqchipMode::Full => EomPath::Resample,
            IrqchipMode::Split => EomPath::MsrExit,
        };
        let synic = KvmSynic::new(
            Arc::clone(&vm),
            memory.clone(),
            Arc::clone(&routes),
            kicker,
            eom_path,
            cpus,
        )
        .map_err(MachineError::kvm("SynIC interrupt routes"))?;

        let stop = eventfd()?;
        let late: Late<MachineHandle> = Late::default();
        let Platform { buses, pm, serial, hubs, ioapic, mut inputs, terminal } = platform::build(
            config,
            &Wiring {
                vm: &vm,
                routes: &routes,
                layout: &layout,
                power: Arc::clone(&control) as _,
                firmware: firmware.as_ref(),
                msvm: msvm.as_ref(),
                stop: &stop,
                escape: escape(&late),
            },
        )?;
        if let Some(msvm) = &msvm {
            inputs.push(msvm.watchdog(Arc::clone(&control) as _));
        }
        let place = match &msvm {
            Some(msvm) => Place::Msvm(msvm.generation()),
            None => {
                Place::page(&vm, generation_id).map_err(MachineError::system("generation id"))?
            }
        };
        let generation = Arc::new(Generation::new(place, Arc::clone(&pm)));
        let counters: Arc<[Counters]> = (0..cpus).map(|_| Counters::default()).collect();
        let state = Arc::new(StateCell::default());
        let handle = MachineHandle {
            control: Arc::clone(&control),
            pm: Arc::clone(&pm),
            generation: Some(generation),
            counters: Arc::clone(&counters),
            state: Arc::clone(&state),
            stop,
            stop_hook: Arc::default(),
        };
        *lock(&late) = Some(handle.clone());
        Ok(Machine {
            vm,
            next_slot: FIRST_WINDOW_SLOT,
            layout,
            source,
            tables,
            identity,
            hyperv: options,
            on_reset: config.on_reset,
            on_panic: config.on_panic,
            on_no_boot_device: config.on_no_boot_device,
            vcpus,
            shared: Shared {
                memory,
                buses,
                synic: Arc::new(synic),
                bus: None,
                free_pages: None,
                control: Arc::clone(&control),
                kicks,
                counters,
                ioapic: ioapic.clone(),
                entry: Mutex::new(Some(entry)),
                log: MachineLog::default(),
            },
            serial_hubs: hubs,
            devices: ResettableDevices { pm, serial, ioapic, chips, firmware, msvm },
            inputs,
            terminal,
            hooks: Vec::new(),
            events: EventLoop::start().map_err(MachineError::system("event loop"))?,
            control,
            state,
            handle,
        })
    }
}

fn open(config: &MachineConfig) -> Result<Kvm, MachineError> {
    let path = &config.kvm;
    let failed = |source: io::Error| MachineError::OpenKvm { path: path.clone(), source };
    let c_path = CString::new(path.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
    let kvm = Kvm::new_with_path(c_path).map_err(|error| failed(error.into()))?;
    if kvm.get_api_version() != KVM_API_VERSION {
        return Err(MachineError::NotKvm { path: path.clone() });
    }
    let missing = |needed: &[(u32, &'static str)]| {
        needed.iter().find(|(number, _)| !has(&kvm, *number)).map(|(_, name)| *name)
    };
    let needed = [
        (KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"),
        (KVM_CAP_IRQFD, "KVM_CAP_IRQFD"),
        (KVM_CAP_IRQFD_RESAMPLE, "KVM_CAP_IRQFD_RESAMPLE"),
    ];
    if let Some(name) = missing(&needed) {
        return Err(MachineError::Missing(name));
    }
    let needed = [
        (KVM_CAP_SPLIT_IRQCHIP, "KVM_CAP_SPLIT_IRQCHIP"),
        (KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER"),
    ];
    match missing(&needed).filter(|_| config.irqchip == IrqchipMode::Split) {
        Some(name) => Err(MachineError::MissingForSplit(name)),
        None => Ok(kvm),
    }
}

fn has(kvm: &Kvm, capability: u32) -> bool {
    kvm.check_extension_raw(capability.into()) > 0
}

fn check_limits(
    kvm: &Kvm,
    cpus: u32,
    layout: &MemoryLayout,
    supported: &[kvm_cpuid_entry2],
) -> Result<(), MachineError> {
    let limit = kvm.get_max_vcpus();
    if cpus as usize > limit {
        return Err(MachineError::TooManyCpus { asked: cpus, limit });
    }
    let (needed, offered) = (layout.address_bits(), address_bits(supported));
    if needed > offered {
        return Err(MachineError::AddressBits { needed, offered });
    }
    Ok(())
}

fn create_vm(kvm: &Kvm, irqchip: IrqchipMode) -> Result<VmFd, MachineError> {
    let vm = new_vm(kvm).map_err(MachineError::kvm("creating the VM"))?;
    vm.set_identity_map_address(IDENTITY_MAP_BASE).map_err(MachineError::kvm("identity map"))?;
    vm.set_tss_address(TSS_BASE as usize).map_err(MachineError::kvm("TSS"))?;
    match irqchip {
        IrqchipMode::Full => {
            vm.create_irq_chip().map_err(MachineError::kvm("creating the irqchip"))?;
            let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
            vm.create_pit2(pit).map_err(MachineError::kvm("creating the PIT"))?;
        }
        IrqchipMode::Split => {
            let mut cap = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
            cap.args[0] = IOAPIC_PINS.into();
            vm.enable_cap(&cap).map_err(MachineError::kvm("creating the split irqchip"))?;
            exit_on_eom(&vm).map_err(MachineError::kvm("MSR filter"))?;
        }
    }
    Ok(vm)
}

/// Makes writes of EOM exit. Without the irqchip in the kernel there are no resample eventfds to
/// report them.
fn exit_on_eom(vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
    let mut cap = kvm_enable_cap { cap: KVM_CAP_X86_USER_SPACE_MSR, ..Default::default() };
    cap.args[0] = KVM_MSR_EXIT_REASON_FILTER.into();
    vm.enable_cap(&cap)?;
    let eom = MsrFilterRange {
        flags: MsrFilterRangeFlags::WRITE,
        base: hyperv::msr::EOM,
        msr_count: 1,
        // A clear bit means that the kernel does not handle the access.
        bitmap: &[0],
    };
    vm.set_msr_filter(MsrFilterDefaultAction::ALLOW, &[eom])
}

fn map_memory(vm: &VmFd, memory: &GuestMemory, layout: &MemoryLayout) -> Result<(), MachineError> {
    let is_ram = |region: &&GuestRegionMmap| {
        layout.hot_add.is_empty() || region.start_addr().raw_value() != layout.hot_add.start
    };
    for (slot, region) in (0..).zip(memory.iter().filter(is_ram)) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the mapping has the given length and outlives the VM: every owner of the VM's
        // vCPUs also holds the memory.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(MachineError::kvm("mapping guest memory"))?;
    }
    Ok(())
}

/// Creates vCPUs in the order of their VP indices. CPUID must be set before the SynIC is enabled.
fn create_vcpus(
    kvm: &Kvm,
    vm: &VmFd,
    template: &Template<'_>,
    boot_msrs: &[BootMsr],
) -> Result<Vec<Vcpu>, MachineError> {
    let msrs = msr_list(kvm).map_err(MachineError::kvm("MSR list"))?;
    let enforce = has(kvm, KVM_CAP_HYPERV_ENFORCE_CPUID);
    if !enforce {
        warn!(
            "this host's KVM cannot confine the guest to the Hyper-V features that it is offered \
            (kernel 5.14)"
        );
    }
    let mut fds = Vec::new();
    for index in 0..template.cpus {
        let vcpu = vm.create_vcpu(index.into()).map_err(MachineError::kvm("creating a vCPU"))?;
        let cpuid = CpuId::from_entries(&template.build(index)).map_err(|error| {
            MachineError::Kvm { what: "CPUID", source: io::Error::other(error) }
        })?;
        vcpu.set_cpuid2(&cpuid).map_err(MachineError::kvm("setting CPUID"))?;
        enable(&vcpu, KVM_CAP_HYPERV_SYNIC2, 0, "enabling the SynIC")?;
        if enforce {
            enable(&vcpu, KVM_CAP_HYPERV_ENFORCE_CPUID, 1, "enforcing Hyper-V CPUID")?;
        }
        set_vp_index(&vcpu, index)?;
        fds.push(vcpu);
    }
    let page_bytes =
        kvm.get_vcpu_mmap_size().map_err(MachineError::kvm("size of a vCPU's state"))?;
    // Recorded after all vCPUs exist: KVM adjusts clocks when a vCPU is added.
    let record = |(index, fd): (u32, VcpuFd)| {
        let power_on = PowerOnState::record(&fd, &msrs, boot_msrs)
            .map_err(MachineError::kvm("reading vCPU state"))?;
        let page = RunPage::map(&fd, page_bytes)
            .map_err(MachineError::system("mapping a vCPU's state"))?;
        Ok(Vcpu::new(index, fd, page, power_on))
    };
    (0..).zip(fds).map(record).collect()
}

fn enable(vcpu: &VcpuFd, cap: u32, argument: u64, what: &'static str) -> Result<(), MachineError> {
    let mut cap = kvm_enable_cap { cap, ..Default::default() };
    cap.args[0] = argument;
    vcpu.enable_cap(&cap).map_err(MachineError::kvm(what))
}

fn set_vp_index(vcpu: &VcpuFd, index: u32) -> Result<(), MachineError> {
    write_msr(vcpu, hyperv::msr::VP_INDEX, index.into())
        .map_err(MachineError::kvm("setting the VP index"))
}
