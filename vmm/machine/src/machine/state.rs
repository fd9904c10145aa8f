//! A vCPU's power-on state: recorded after its creation, applied at each reset.

use std::io;

use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED, Msrs, kvm_debugregs, kvm_lapic_state,
    kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuFd};

use crate::boot::{BootMsr, Entry, apply_cpu_state};

/// MSRs that continue over a reset, or cannot be written: the TSC (its offsets must stay equal on
/// all vCPUs, or the reference TSC page breaks), reference counter, frequencies.
const LEFT_ALONE: [u32; 4] = [0x10, 0x4000_0020, 0x4000_0022, 0x4000_0023];
/// SynIC and stimer MSRs, which KVM does not list.
const SYNIC_MSRS: [std::ops::RangeInclusive<u32>; 3] =
    [0x4000_0082..=0x4000_0083, 0x4000_0090..=0x4000_009F, 0x4000_00B0..=0x4000_00B7];

const LVT0: usize = 0x350;
const LVT1: usize = 0x360;
const LVT_EXTINT: u32 = 0x700;
const LVT_NMI: u32 = 0x400;

/// The complete initial state of a vCPU.
pub(super) struct PowerOnState {
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: Box<kvm_xsave>,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    events: kvm_vcpu_events,
    lapic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
}

/// Returns the MSRs that form a vCPU's state on this host.
pub(super) fn msr_list(kvm: &Kvm) -> io::Result<Vec<u32>> {
    let list = kvm.get_msr_index_list()?;
    let listed = list.as_slice().iter().copied().filter(|index| !LEFT_ALONE.contains(index));
    Ok(listed.chain(SYNIC_MSRS.into_iter().flatten()).collect())
}

impl PowerOnState {
    /// Records the state of a vCPU that has not yet run.
    pub(super) fn record(
        vcpu: &VcpuFd,
        msr_list: &[u32],
        boot_msrs: &[BootMsr],
    ) -> io::Result<PowerOnState> {
        let mut lapic = vcpu.get_lapic()?;
        set_lapic_register(&mut lapic, LVT0, LVT_EXTINT);
        set_lapic_register(&mut lapic, LVT1, LVT_NMI);
        let mut msrs = read_msrs(vcpu, msr_list);
        msrs.extend(boot_msrs.iter().map(|msr| kvm_msr_entry {
            index: msr.index,
            data: msr.value,
            ..Default::default()
        }));
        Ok(PowerOnState {
            regs: vcpu.get_regs()?,
            sregs: vcpu.get_sregs()?,
            xsave: Box::new(vcpu.get_xsave()?),
            xcrs: vcpu.get_xcrs()?,
            debug: vcpu.get_debug_regs()?,
            events: vcpu.get_vcpu_events()?,
            lapic,
            msrs,
        })
    }

    /// Sets the vCPU to this state. With `entry`, the vCPU is the boot processor and starts there;
    /// otherwise it waits for INIT.
    pub(super) fn apply(&self, vcpu: &VcpuFd, entry: Option<Entry>) -> io::Result<()> {
        let (mut regs, mut sregs) = (self.regs, self.sregs);
        let mut mp_state = KVM_MP_STATE_UNINITIALIZED;
        if let Some(entry) = entry {
            apply_cpu_state(&mut regs, &mut sregs, entry);
            mp_state = KVM_MP_STATE_RUNNABLE;
        }
        vcpu.set_vcpu_events(&self.events)?;
        vcpu.set_sregs(&sregs)?;
        vcpu.set_regs(&regs)?;
        vcpu.set_xcrs(&self.xcrs)?;
        // SAFETY: no dynamically enabled feature (AMX) is requested, so KVM reads only the
        // structure itself.
        unsafe { vcpu.set_xsave(&self.xsave)? };
        vcpu.set_debug_regs(&self.debug)?;
        write_msrs(vcpu, &self.msrs)?;
        vcpu.set_lapic(&self.lapic)?;
        vcpu.set_mp_state(kvm_mp_state { mp_state })?;
        Ok(())
    }
}

/// Reads MSRs. MSRs that this host cannot read are omitted.
pub(super) fn read_msrs(vcpu: &VcpuFd, indices: &[u32]) -> Vec<kvm_msr_entry> {
    let mut values = Vec::with_capacity(indices.len());
    let mut rest: &[u32] = indices;
    while !rest.is_empty() {
        let batch = rest.len().min(kvm_bindings::KVM_MAX_MSR_ENTRIES);
        let entries: Vec<kvm_msr_entry> = rest[..batch]
            .iter()
            .map(|index| kvm_msr_entry { index: *index, ..Default::default() })
            .collect();
        let Ok(mut msrs) = Msrs::from_entries(&entries) else { break };
        // KVM stops at the first MSR that it refuses.
        let read = vcpu.get_msrs(&mut msrs).unwrap_or(0).min(batch);
        values.extend_from_slice(&msrs.as_slice()[..read]);
        rest = &rest[if read == batch { batch } else { read + 1 }..];
    }
    values
}

/// Writes one MSR with the host's privileges.
pub(super) fn write_msr(vcpu: &VcpuFd, index: u32, data: u64) -> io::Result<()> {
    let entry = kvm_msr_entry { index, data, ..Default::default() };
    let msrs = Msrs::from_entries(&[entry]).map_err(io::Error::other)?;
    match vcpu.set_msrs(&msrs)? {
        1 => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// Writes MSRs. An MSR whose old value this host refuses is read-only, and is skipped.
fn write_msrs(vcpu: &VcpuFd, values: &[kvm_msr_entry]) -> io::Result<()> {
    let mut rest = values;
    while !rest.is_empty() {
        let batch = rest.len().min(kvm_bindings::KVM_MAX_MSR_ENTRIES);
        let msrs = Msrs::from_entries(&rest[..batch]).map_err(io::Error::other)?;
        let written = vcpu.set_msrs(&msrs)?.min(batch);
        rest = &rest[if written == batch { batch } else { written + 1 }..];
    }
    Ok(())
}

fn set_lapic_register(lapic: &mut kvm_lapic_state, register: usize, value: u32) {
    for (slot, byte) in lapic.regs[register..register + 4].iter_mut().zip(value.to_le_bytes()) {
        *slot = byte as _;
    }
}
