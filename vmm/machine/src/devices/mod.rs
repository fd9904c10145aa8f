//! The machine's legacy devices, which a PC guest expects before it enumerates a bus (spec
//! hypervisor-platform sections 9.3 and 11).

mod bus;

pub(crate) mod ioapic;
mod legacy;
pub(crate) mod pci;
pub(crate) mod pm;
pub(crate) mod rtc;
pub(crate) mod serial;

use synthvm_firmware::BootFailure;

pub(crate) use crate::irq::InterruptLine;
pub(crate) use bus::{Buses, PioDevice};
pub(crate) use legacy::{FastReset, KeyboardReset, NoPci, ResetControl, SystemPort};

/// A request from a device to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PowerRequest {
    /// Soft-off (S5).
    PowerOff,
    /// Reset of the whole machine.
    Reset,
    /// Firmware booted no system.
    BootFailure(BootFailure),
}

/// The receiver of power requests. The vCPU thread that made the access calls it; it must not
/// block.
pub(crate) trait Power: Send + Sync {
    /// Records the request. The machine acts on it after the access.
    fn request(&self, request: PowerRequest);
}
