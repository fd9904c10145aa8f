//! The machine's actions on a guest's reset and panic and on a failed boot, the location of its interrupt controllers,
//! and the time zone of its clock.

use serde::{Deserialize, Serialize};

/// The location of the emulated interrupt controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IrqchipMode {
    /// PICs, IOAPIC and local APICs in the kernel.
    #[default]
    Full,
    /// Local APICs in the kernel; the IOAPIC in SynthVM.
    Split,
}

/// The time zone of the battery-backed clock (RTC). A guest reads it at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RtcBase {
    /// Coordinated universal time, as Linux expects.
    #[default]
    Utc,
    /// The host's local time when the machine starts, as Windows expects.
    Local,
}

/// The action on a reset that the guest requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnReset {
    /// Start the guest again from its kernel, in the same process.
    #[default]
    Reboot,
    /// End the program with its own exit status.
    Exit,
}

/// The action on firmware's report that there is no system to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnNoBootDevice {
    /// Let the firmware show its message and wait for its user.
    #[default]
    Wait,
    /// End the program with its own exit status.
    Exit,
}

/// The action on a panic that the guest reported (Hyper-V crash MSRs), after it has been logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnPanic {
    /// End the program with its own exit status.
    #[default]
    Exit,
    /// Start the guest again from its kernel.
    Reboot,
    /// Let the guest continue: it may write a dump, or reset itself.
    Continue,
}
