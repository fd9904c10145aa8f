//! The memory that KVM shares with a vCPU's thread: `struct kvm_run`, followed by the data of port
//! I/O (Linux, Documentation/virt/kvm/api.rst, section 5).
//!
//! Other threads store to one byte of the structure, `immediate_exit`, at any time. So no reference
//! to the structure may exist: that byte is an atomic, and every other field is accessed by a raw
//! pointer that is derived from the whole mapping. `VcpuFd::run` and `VcpuFd::get_kvm_run` create a
//! `&mut kvm_run`, so this module maps the same memory a second time, and those two functions must
//! not be called.

use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::{
    KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_HYPERV, KVM_EXIT_HYPERV_HCALL,
    KVM_EXIT_HYPERV_SYNIC, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR, KVM_EXIT_IO, KVM_EXIT_IO_IN,
    KVM_EXIT_IOAPIC_EOI, KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN, KVM_EXIT_SYSTEM_EVENT,
    KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR, KVMIO, kvm_run,
};
use kvm_ioctls::VcpuFd;
use tracing::error;
use vmm_sys_util::ioctl::ioctl;
use vmm_sys_util::ioctl_io_nr;

use crate::hyperv::{Hypercall, SynicState};

ioctl_io_nr!(KVM_RUN, KVMIO, 0x80);

/// The vCPU thread's access to the shared memory.
pub(super) struct RunPage(Arc<Mapping>);

/// The access of other threads: makes KVM_RUN return without running the guest.
#[derive(Clone)]
pub(super) struct ImmediateExit(Arc<Mapping>);

struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: owns a mapping that any thread may use and unmap. Its only accesses through `&Mapping`
// are atomic.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// The exit of KVM_RUN. Slices and references point to fields that KVM reads in the next KVM_RUN.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Exit<'a> {
    /// IN (`read`) or OUT; with REP, `data` has several elements of `size` bytes.
    Port { port: u16, read: bool, size: usize, data: &'a mut [u8] },
    /// A load (`read`) or store of up to 8 bytes outside RAM.
    Memory { address: u64, read: bool, data: &'a mut [u8] },
    /// The guest wrote a SynIC MSR.
    Synic(SynicState),
    /// HvPostMessage, HvSignalEvent and others. KVM does not clear the last result.
    Hypercall { call: Hypercall, result: &'a mut u64 },
    /// A Hyper-V exit of another type.
    OtherHyperv,
    /// End of interrupt of an I/O APIC's vector.
    EndOfInterrupt(u8),
    /// A filtered MSR access; `error` not 0 injects #GP.
    Msr { index: u32, write: bool, error: &'a mut u8 },
    /// The guest crashed, was reset or powered off (KVM_SYSTEM_EVENT_*).
    SystemEvent(u32),
    /// A triple fault.
    Shutdown,
    /// A signal arrived.
    Interrupted,
    /// HLT without an in-kernel interrupt controller.
    Halt,
    /// KVM could not continue, with its suberror.
    InternalError(u32),
    /// The processor refused the guest's state, with its reason.
    FailEntry(u64),
    /// Any other exit, or one whose data exceeds the mapping.
    Unexpected(u32),
}

impl RunPage {
    /// Maps the shared memory of `vcpu`. `bytes` is the result of KVM_GET_VCPU_MMAP_SIZE.
    ///
    /// # Errors
    /// The host's error; `InvalidInput` if `bytes` is too small for the structure.
    pub(super) fn map(vcpu: &impl AsRawFd, bytes: usize) -> io::Result<RunPage> {
        if bytes < size_of::<kvm_run>() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (access, fd) = (libc::PROT_READ | libc::PROT_WRITE, vcpu.as_raw_fd());
        // SAFETY: a fresh mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_SHARED, fd, 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(place) if start != libc::MAP_FAILED => {
                Ok(RunPage(Arc::new(Mapping { start: place, bytes })))
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Runs `vcpu`, which must be the vCPU of this page, until its next exit.
    ///
    /// # Errors
    /// The host's error; EINTR for a signal and for [`ImmediateExit`].
    pub(super) fn run(&mut self, vcpu: &VcpuFd) -> io::Result<()> {
        // SAFETY: has no argument; no reference exists to the parts of this page that KVM writes.
        match unsafe { ioctl(vcpu, KVM_RUN()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Returns the handle by which other threads end KVM_RUN.
    pub(super) fn immediate_exit(&self) -> ImmediateExit {
        ImmediateExit(Arc::clone(&self.0))
    }

    /// Returns the exit of the last successful [`RunPage::run`].
    pub(super) fn exit(&mut self) -> Exit<'_> {
        let run: *mut kvm_run = self.0.start.as_ptr().cast();
        // SAFETY: the mapping holds the structure, and outlives the result, which borrows `self`.
        // Only this thread and, within KVM_RUN, the kernel access it, except for `immediate_exit`,
        // which is not referenced here. The exit's reason (and type) determines the valid member of
        // a union.
        unsafe {
            let member = &raw mut (*run).__bindgen_anon_1;
            match (*run).exit_reason {
                KVM_EXIT_IO => {
                    let io = (*member).io;
                    let size = usize::from(io.size);
                    let Some(data) =
                        self.behind(io.data_offset, u64::from(io.count) * u64::from(io.size))
                    else {
                        return Exit::Unexpected(KVM_EXIT_IO);
                    };
                    let read = u32::from(io.direction) == KVM_EXIT_IO_IN;
                    Exit::Port { port: io.port, read, size, data }
                }
                KVM_EXIT_MMIO => {
                    let mmio = &raw mut (*member).mmio;
                    let data = &mut (*mmio).data;
                    let len = ((*mmio).len as usize).min(data.len());
                    let read = (*mmio).is_write == 0;
                    Exit::Memory { address: (*mmio).phys_addr, read, data: &mut data[..len] }
                }
                KVM_EXIT_HYPERV => {
                    let hyperv = &raw mut (*member).hyperv;
                    match (*hyperv).type_ {
                        KVM_EXIT_HYPERV_SYNIC => {
                            let synic = (*hyperv).u.synic;
                            Exit::Synic(SynicState {
                                control: synic.control,
                                event_page: synic.evt_page,
                                message_page: synic.msg_page,
                            })
                        }
                        KVM_EXIT_HYPERV_HCALL => {
                            let call = &raw mut (*hyperv).u.hcall;
                            let (input, [parameter, output]) = ((*call).input, (*call).params);
                            let result = &mut (*call).result;
                            Exit::Hypercall { call: Hypercall { input, parameter, output }, result }
                        }
                        _ => Exit::OtherHyperv,
                    }
                }
                KVM_EXIT_IOAPIC_EOI => Exit::EndOfInterrupt((*member).eoi.vector),
                reason @ (KVM_EXIT_X86_RDMSR | KVM_EXIT_X86_WRMSR) => {
                    let msr = &raw mut (*member).msr;
                    let write = reason == KVM_EXIT_X86_WRMSR;
                    Exit::Msr { index: (*msr).index, write, error: &mut (*msr).error }
                }
                KVM_EXIT_SYSTEM_EVENT => Exit::SystemEvent((*member).system_event.type_),
                KVM_EXIT_SHUTDOWN => Exit::Shutdown,
                KVM_EXIT_INTR => Exit::Interrupted,
                KVM_EXIT_HLT => Exit::Halt,
                KVM_EXIT_INTERNAL_ERROR => Exit::InternalError((*member).internal.suberror),
                KVM_EXIT_FAIL_ENTRY => {
                    Exit::FailEntry((*member).fail_entry.hardware_entry_failure_reason)
                }
                reason => Exit::Unexpected(reason),
            }
        }
    }

    /// Returns `len` bytes from `offset` of the mapping, which must be behind the structure.
    fn behind(&mut self, offset: u64, len: u64) -> Option<&mut [u8]> {
        let (offset, len) = (usize::try_from(offset).ok()?, usize::try_from(len).ok()?);
        let end = offset.checked_add(len)?;
        if offset < size_of::<kvm_run>() || end > self.0.bytes {
            return None;
        }
        // SAFETY: inside the mapping, from whose start the pointer is derived. No other reference
        // exists: KVM accesses it only within KVM_RUN, other threads never.
        Some(unsafe { slice::from_raw_parts_mut(self.0.start.as_ptr().add(offset), len) })
    }
}

impl ImmediateExit {
    /// Sets the flag. While it is `true`, KVM_RUN finishes pending work and returns EINTR without
    /// running the guest.
    pub(super) fn set(&self, on: bool) {
        // SAFETY: the byte lies in the mapping, which `self` keeps, and is only used as an atomic.
        let byte = unsafe {
            AtomicU8::from_ptr(self.0.start.as_ptr().add(offset_of!(kvm_run, immediate_exit)))
        };
        byte.store(on.into(), Ordering::SeqCst);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to this value, and both sides that could use it have been
        // dropped.
        if unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) } != 0 {
            // The range stays mapped but unused: at most one leak per vCPU.
            error!("a vCPU's shared memory was not unmapped: {}", io::Error::last_os_error());
        }
    }
}

#[cfg(test)]
#[path = "run_page_tests.rs"]
mod tests;
