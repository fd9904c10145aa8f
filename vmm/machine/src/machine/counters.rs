//! Counters of each vCPU's exits to user space, by cause.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of one vCPU. Only its thread writes them.
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
    /// Adds one. There is one writer, so no locked instruction is needed.
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
    /// HvSignalEvent without a bound eventfd. Zero while a disk works.
    pub signal_event: u64,
    /// I/O ports.
    pub io: u64,
    /// Memory that is not RAM.
    pub mmio: u64,
    /// MSRs, including those of the SynIC.
    pub msr: u64,
    /// HLT. Zero, because KVM's LAPIC keeps halted vCPUs in the kernel.
    pub halt: u64,
    /// Exits because of a kick: messages to deliver, pause, reset.
    pub interrupted: u64,
    /// All other exits.
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
