//! SRB statuses: the view of the guest's port driver (storvsc section 4.1). Linux accepts only
//! [`SUCCESS`] itself as success.

/// The command has succeeded.
pub const SUCCESS: u8 = 0x01;
/// The command has failed.
pub const ERROR: u8 = 0x04;
/// The device is busy: the same command may succeed later.
pub const BUSY: u8 = 0x05;
/// The request is invalid.
pub const INVALID_REQUEST: u8 = 0x06;
/// There is no such device.
pub const NO_DEVICE: u8 = 0x08;
/// The command timed out.
pub const TIMEOUT: u8 = 0x09;
/// The target did not answer.
pub const SELECTION_TIMEOUT: u8 = 0x0A;
/// The command timed out on the bus.
pub const COMMAND_TIMEOUT: u8 = 0x0B;
/// The bus was reset.
pub const BUS_RESET: u8 = 0x0E;
/// The target moved another number of bytes than requested, or the number is beyond the limit.
pub const DATA_OVERRUN: u8 = 0x12;
/// There is no such logical unit.
pub const INVALID_LUN: u8 = 0x20;
/// There is no such target.
pub const INVALID_TARGET: u8 = 0x21;

/// The bits that are a status; the others are flags.
pub const STATUS_MASK: u8 = 0x3F;
/// Flag: sense data is valid.
pub const AUTOSENSE_VALID: u8 = 0x80;
