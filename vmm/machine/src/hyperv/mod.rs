//! Hyper-V on KVM: the enlightenments of the guest, and KVM's in-kernel SynIC as the bus's
//! [`vmbus_host::Synic`] (spec hypervisor-platform section 5, vmbus-core sections 1 and 2).

mod cpuid;
mod enlightenments;
mod eom;
mod eom_watcher;
mod extended;
mod hypercall;
mod ioctl;
mod pages;
mod synic;

pub(crate) use cpuid::{HypervCpuid, leaves};
pub use enlightenments::HypervError;
pub(crate) use enlightenments::{Enlightenment, Offer};
pub(crate) use eom_watcher::EomWatcher;
pub use extended::FreePages;
pub(crate) use hypercall::{Hypercall, dispatch};
pub(crate) use ioctl::supported_cpuid;
pub(crate) use pages::SynicState;
pub(crate) use synic::{EomPath, KickVp, KvmSynic};
pub(crate) use vmbus_protocol::offer::VMBUS_SINT;

/// Hyper-V MSRs that the machine reads or writes.
pub(crate) mod msr {
    /// VP index.
    pub(crate) const VP_INDEX: u32 = 0x4000_0002;
    /// End of message.
    pub(crate) const EOM: u32 = 0x4000_0084;
    /// The first of five consecutive crash parameters.
    pub(crate) const CRASH_P0: u32 = 0x4000_0100;
}
