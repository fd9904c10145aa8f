//! The machine's actions at a guest's reset and panic, and the place of its interrupt controllers.

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
