//! What the machine does at the turning points of its life, where its interrupt controllers live,
//! and devices for tests.

use serde::{Deserialize, Serialize};

/// Where the interrupt controllers are emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IrqchipMode {
    /// PICs, IOAPIC and local APICs in the kernel.
    #[default]
    Full,
    /// Local APICs in the kernel; the IOAPIC in SynthVM.
    Split,
}

/// Devices that no guest needs: for those who work on the bus or on a guest's driver for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestDevice {
    /// The device of `docs/writing-a-backend.md`: answers each packet with itself.
    Echo,
}

/// What a reset that the guest asked for does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnReset {
    /// Start the guest again from its kernel, in the same process.
    #[default]
    Reboot,
    /// End the program with its own exit status.
    Exit,
}

/// What a panic that the guest reported (Hyper-V crash MSRs) does, after it has been logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnPanic {
    /// End the program with its own exit status.
    #[default]
    Exit,
    /// Start the guest again from its kernel.
    Reboot,
    /// Let the guest go on: it may write a dump, or reset itself.
    Continue,
}
