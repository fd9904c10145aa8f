//! The KVM capabilities that the doctor checks, with their numbers (linux/kvm.h) and purposes.

use super::Group;

/// The importance of a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// No stock guest runs without it.
    Required,
    /// At least one capability with this mark is required.
    OneOf(&'static str),
    /// Guests run without it, at a cost.
    Wanted,
}

/// A KVM capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// The number for KVM_CHECK_EXTENSION.
    pub number: u32,
    /// The name without KVM_CAP_.
    pub name: &'static str,
    /// The part of the table.
    pub group: Group,
    /// The importance.
    pub need: Need,
    /// The purpose.
    pub purpose: &'static str,
    /// The effect of its absence.
    pub cost: &'static str,
}

/// KVM_CAP_IRQCHIP.
pub(super) const IRQCHIP: u32 = 0;
/// KVM_CAP_HYPERV.
pub(super) const HYPERV: u32 = 44;
/// KVM_CAP_HYPERV_SYNIC2.
pub(super) const HYPERV_SYNIC2: u32 = 148;
/// KVM_CAP_HYPERV_EVENTFD.
pub(super) const HYPERV_EVENTFD: u32 = 154;
/// KVM_CAP_MAX_VCPUS.
pub(super) const MAX_VCPUS: u32 = 66;
/// KVM_CAP_SPLIT_IRQCHIP.
pub(super) const SPLIT_IRQCHIP: u32 = 121;

const CPUID: &str = "hyperv-cpuid";

macro_rules! capabilities {
    ($($group:ident $need:expr, $number:literal $name:literal $purpose:literal $cost:literal;)*) => {
        /// Every capability that is checked, in the order of the table.
        pub const CAPABILITIES: &[Capability] = &[$(Capability {
            number: $number,
            name: $name,
            group: Group::$group,
            need: $need,
            purpose: $purpose,
            cost: $cost,
        }),*];
    };
}

use Need::{OneOf, Required, Wanted};

capabilities! {
    HyperV Required, 44 "HYPERV" "Hyper-V MSRs and hypercalls"
        "guests find no Hyper-V, so no VMBus and no disks";
    HyperV Wanted, 45 "HYPERV_VAPIC" "APIC access by MSR, VP assist page"
        "more exits for each interrupt in Windows";
    HyperV Wanted, 46 "HYPERV_SPIN" "spin hints"
        "vCPUs spin longer for locks whose owner does not run";
    HyperV Wanted, 96 "HYPERV_TIME" "reference counter and TSC page"
        "each look at the clock in the guest is an exit";
    HyperV Wanted, 123 "HYPERV_SYNIC" "first form of the SynIC"
        "nothing, as long as HYPERV_SYNIC2 is there";
    HyperV Required, 148 "HYPERV_SYNIC2" "synthetic interrupt controller"
        "VMBus has no messages and no interrupts";
    HyperV Required, 149 "HYPERV_VP_INDEX" "VP numbers that SynthVM chooses"
        "Linux uses no Hyper-V, and interrupts reach the wrong vCPU";
    HyperV Required, 154 "HYPERV_EVENTFD" "doorbells that stay in the kernel"
        "each doorbell of the guest is an exit to user space";
    HyperV Wanted, 155 "HYPERV_TLBFLUSH" "TLB flush by hypercall"
        "TLB flushes interrupt every vCPU, also those that do not run";
    HyperV Wanted, 161 "HYPERV_SEND_IPI" "IPIs to many vCPUs by one hypercall"
        "an exit for each target of an IPI";
    HyperV OneOf(CPUID), 167 "HYPERV_CPUID" "list of supported enlightenments (by vCPU)"
        "SynthVM cannot list the enlightenments that it may offer";
    HyperV OneOf(CPUID), 191 "SYS_HYPERV_CPUID" "the same list, before a vCPU exists"
        "SynthVM cannot list the enlightenments that it may offer";
    HyperV Wanted, 199 "HYPERV_ENFORCE_CPUID" "refuses enlightenments that are not offered"
        "a guest may use enlightenments that were switched off";
    Machine Required, 0 "IRQCHIP" "interrupt controllers in the kernel"
        "there is no SynIC without local APICs in the kernel";
    Machine Wanted, 121 "SPLIT_IRQCHIP" "IOAPIC outside the kernel"
        "--irqchip split cannot be used";
    Machine Required, 25 "IRQ_ROUTING" "interrupt routes, to SINTs too"
        "interrupts of VMBus cannot reach the guest";
    Machine Required, 32 "IRQFD" "interrupts by eventfd"
        "interrupts of VMBus cannot reach the guest";
    Machine Required, 82 "IRQFD_RESAMPLE" "end of interrupt by eventfd"
        "SynthVM never learns that a message slot is free again";
    Machine Wanted, 36 "IOEVENTFD" "port writes by eventfd"
        "doorbells of devices that are not on VMBus are exits";
    Machine Required, 136 "IMMEDIATE_EXIT" "stops a vCPU without a lost signal"
        "a vCPU cannot be stopped or handed a message safely";
    Machine Wanted, 74 "SYNC_REGS" "registers in the shared page"
        "more system calls for each exit that needs registers";
    Machine Wanted, 60 "TSC_CONTROL" "TSC frequency of its own for each VM"
        "the guest's TSC runs at the host's frequency";
    Machine Wanted, 72 "TSC_DEADLINE_TIMER" "APIC timer by TSC deadline"
        "guests use a slower timer";
    Machine Wanted, 188 "X86_USER_SPACE_MSR" "MSR accesses that reach SynthVM"
        "the guest gets a fault for MSRs that KVM does not know";
    Machine Wanted, 189 "X86_MSR_FILTER" "MSRs that KVM must leave to SynthVM"
        "single MSRs cannot be taken over or hidden";
}
