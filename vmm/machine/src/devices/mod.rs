//! The machine's legacy devices: what a PC guest expects to find before it has seen a bus (spec
//! hypervisor-platform sections 9.3 and 11).

mod bus;

pub(crate) mod ioapic;
mod legacy;
pub(crate) mod pm;
pub(crate) mod rtc;
pub(crate) mod serial;

pub(crate) use crate::irq::InterruptLine;
pub(crate) use bus::{Buses, PioDevice};
pub(crate) use legacy::{FastReset, KeyboardReset, NoPci, SystemPort};

/// What a device can ask of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PowerRequest {
    /// Soft-off (S5).
    PowerOff,
    /// Reset of the whole machine.
    Reset,
}

/// Takes power requests. Called on the vCPU thread whose access made the request; must not block.
pub(crate) trait Power: Send + Sync {
    /// Remembers the request; the machine acts on it as soon as the access is over.
    fn request(&self, request: PowerRequest);
}
