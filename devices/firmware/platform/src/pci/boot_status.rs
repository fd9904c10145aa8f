//! The boot status register of the function that carries the option ROM: the driver in the ROM
//! reports that the firmware found no system (docs/firmware.md).
//!
//! It is a byte in a vendor-specific capability. The driver closes it when a system takes over, so
//! that only firmware can report.

use std::fmt;

use super::function::{Function, offset};

/// Why the firmware booted no system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootFailure {
    /// No boot option could be started, or there is none.
    NoOption,
    /// The firmware starts its own shell, because nothing else could be started.
    Shell,
}

impl fmt::Display for BootFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BootFailure::NoOption => "the firmware found no system to boot",
            BootFailure::Shell => {
                "the firmware found no system to boot, and starts its built-in shell"
            }
        })
    }
}

/// The capability: id (vendor-specific), next capability, length, 0, signature.
const CAPABILITY: u8 = 0x40;
const CONTENT: [u8; 8] = [9, 0, 12, 0, b'S', b'V', b'b', b's'];

/// The register, 0 after a reset.
pub(super) const REGISTER: u8 = CAPABILITY + 8;

/// The values of the register.
const OPEN: u8 = 0;
const NO_OPTION: u8 = 1;
const SHELL: u8 = 2;
const CLOSED: u8 = 0xFF;

/// Adds the register to a function.
pub(super) fn add_to(function: &mut Function) {
    function.preset(offset::STATUS, &[offset::HAS_CAPABILITIES]);
    function.preset(offset::CAPABILITIES, &[CAPABILITY]);
    function.preset(CAPABILITY, &CONTENT);
}

/// Writes the register. Returns the failure that it reports: the first one after a reset, unless
/// the register is closed.
pub(super) fn write(function: &mut Function, value: u8) -> Option<BootFailure> {
    let failure = match (function.read(REGISTER), value) {
        (OPEN, NO_OPTION) => Some(BootFailure::NoOption),
        (OPEN, SHELL) => Some(BootFailure::Shell),
        (_, CLOSED) => None,
        _ => return None,
    };
    function.set(REGISTER, value);
    failure
}
