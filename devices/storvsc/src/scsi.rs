//! SCSI statuses (SAM-5 section 5.3).

/// The command has succeeded.
pub const GOOD: u8 = 0x00;
/// Sense data says more.
pub const CHECK_CONDITION: u8 = 0x02;
/// The device is busy: the same command may succeed later.
pub const BUSY: u8 = 0x08;
/// Another initiator has reserved the logical unit.
pub const RESERVATION_CONFLICT: u8 = 0x18;
/// The logical unit takes no more commands now.
pub const TASK_SET_FULL: u8 = 0x28;
