//! Hyper-V on KVM: what the guest is offered, and KVM's in-kernel SynIC as the bus's
//! [`vmbus_host::Synic`] (spec hypervisor-platform section 5, vmbus-core sections 1 and 2).

mod cpuid;
mod enlightenments;
mod eom;
mod hypercall;
mod ioctl;
mod pages;
mod synic;

pub use cpuid::{HypervCpuid, leaves};
pub use enlightenments::{
    ALWAYS_FEATURES_EAX, Enlightenment, HypervError, Offer, TABLE, enlightenment,
};
pub use eom::EomWatcher;
pub(crate) use hypercall::dispatch;
pub use hypercall::{HypercallHandler, HypercallStatus, NoBus};
pub use ioctl::supported_cpuid;
pub use pages::SynicState;
pub use synic::{EomPath, KickVp, KvmSynic};

/// SINT of VMBus.
pub const VMBUS_SINT: u8 = 2;

/// Hyper-V MSRs that the machine itself reads or writes.
pub mod msr {
    /// VP index.
    pub const VP_INDEX: u32 = 0x4000_0002;
    /// End of message.
    pub const EOM: u32 = 0x4000_0084;
    /// First crash parameter; five in a row.
    pub const CRASH_P0: u32 = 0x4000_0100;
}
