//! The KVM ioctls for Hyper-V that `kvm-ioctls` has no wrappers for.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use kvm_bindings::{
    CpuId, KVM_HYPERV_EVENTFD_DEASSIGN, KVMIO, kvm_cpuid_entry2, kvm_cpuid2, kvm_hyperv_eventfd,
};
use kvm_ioctls::{Kvm, VmFd};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::{ioctl_with_mut_ptr, ioctl_with_ref};
use vmm_sys_util::{ioctl_iow_nr, ioctl_iowr_nr};

ioctl_iow_nr!(KVM_HYPERV_EVENTFD, KVMIO, 0xBD, kvm_hyperv_eventfd);
ioctl_iowr_nr!(KVM_GET_SUPPORTED_HV_CPUID, KVMIO, 0xC1, kvm_cpuid2);

/// KVM refuses fewer than ten entries with E2BIG; later kernels may list more leaves.
const CPUID_ENTRIES: usize = 32;

/// Returns the Hyper-V CPUID leaves that this host's KVM offers (needs `KVM_CAP_SYS_HYPERV_CPUID`,
/// kernel 5.11).
///
/// # Errors
/// The kernel's error.
pub(crate) fn supported_cpuid(kvm: &Kvm) -> io::Result<Vec<kvm_cpuid_entry2>> {
    let mut cpuid = CpuId::new(CPUID_ENTRIES).map_err(io::Error::other)?;
    // SAFETY: the structure has space for the number of entries that it declares, as the kernel
    // requires.
    let result = unsafe {
        ioctl_with_mut_ptr(kvm, KVM_GET_SUPPORTED_HV_CPUID(), cpuid.as_mut_fam_struct_ptr())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cpuid.as_slice().to_vec())
}

/// Binds `connection_id` to `event`: HvSignalEvent to it signals `event` in the kernel.
pub(super) fn bind_doorbell(vm: &VmFd, connection_id: u32, event: &EventFd) -> io::Result<()> {
    hyperv_eventfd(vm, connection_id, event.as_raw_fd(), 0)
}

/// Unbinds `connection_id` from `event`.
pub(super) fn unbind_doorbell(vm: &VmFd, connection_id: u32, event: &EventFd) -> io::Result<()> {
    hyperv_eventfd(vm, connection_id, event.as_raw_fd(), KVM_HYPERV_EVENTFD_DEASSIGN)
}

fn hyperv_eventfd(vm: &VmFd, conn_id: u32, fd: RawFd, flags: u32) -> io::Result<()> {
    let request = kvm_hyperv_eventfd { conn_id, fd, flags, padding: [0; 3] };
    // SAFETY: the structure is live and of the size that the ioctl number carries.
    match unsafe { ioctl_with_ref(vm, KVM_HYPERV_EVENTFD(), &request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
