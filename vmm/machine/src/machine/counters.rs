//! How often and why each vCPU left the guest for user space.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one vCPU. Written by its thread only.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Counters {
    pub(super) post_message: Counter,
    pub(super) signal_event: Counter,
    pub(super) io: Counter,
    pub(super) mmio: Counter,
    pub(super) msr: Counter,
    pub(super) halt: Counter,
    pub(super) interrupted: Counter,
    pub(super) other: Counter,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// One writer: no locked instruction needed.
    pub(super) fn add(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A vCPU's exits to user space since the machine was built, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct VcpuExits {
    /// HvPostMessage.
    pub post_message: u64,
    /// HvSignalEvent that no eventfd took. Zero while a disk works.
    pub signal_event: u64,
    /// I/O ports.
    pub io: u64,
    /// Memory that is not RAM.
    pub mmio: u64,
    /// MSRs, with those of the SynIC.
    pub msr: u64,
    /// HLT (zero: KVM's own LAPIC keeps halted vCPUs in the kernel).
    pub halt: u64,
    /// Left because of a kick: messages to deliver, pause, reset.
    pub interrupted: u64,
    /// Everything else.
    pub other: u64,
}

impl From<&Counters> for VcpuExits {
    fn from(counters: &Counters) -> VcpuExits {
        VcpuExits {
            post_message: counters.post_message.get(),
            signal_event: counters.signal_event.get(),
            io: counters.io.get(),
            mmio: counters.mmio.get(),
            msr: counters.msr.get(),
            halt: counters.halt.get(),
            interrupted: counters.interrupted.get(),
            other: counters.other.get(),
        }
    }
}
