//! Status words: NTSTATUS of the packet, SRB status of the port driver, SCSI status of the device.

/// NTSTATUS of a reply packet. Windows looks at it, Linux only logs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum NtStatus {
    /// Done.
    Success = 0,
    /// STATUS_BUFFER_OVERFLOW: the buffer was too small.
    BufferOverflow = 0x8000_0005,
    /// Not now: ask again.
    DeviceBusy = 0x8000_0011,
    /// The request itself is wrong.
    InvalidParameter = 0xC000_000D,
    /// The protocol version or revision is not known.
    RevisionMismatch = 0xC000_0059,
    /// Nothing is at this address.
    DeviceDoesNotExist = 0xC000_00C0,
    /// Not now: an operation out of order.
    InvalidDeviceState = 0xC000_0184,
    /// The device reports an error.
    IoDeviceError = 0xC000_0185,
}

/// SRB status values that this host sends. Linux takes nothing but exactly
/// [`SUCCESS`](srb::SUCCESS) for success.
pub(super) mod srb {
    pub(in super::super) const SUCCESS: u8 = 0x01;
    pub(in super::super) const ERROR: u8 = 0x04;
    pub(in super::super) const BUSY: u8 = 0x05;
    pub(in super::super) const INVALID_REQUEST: u8 = 0x06;
    pub(in super::super) const DATA_OVERRUN: u8 = 0x12;
    pub(in super::super) const INVALID_LUN: u8 = 0x20;
    /// Flag: sense data is valid.
    pub(in super::super) const AUTOSENSE_VALID: u8 = 0x80;
}

/// SCSI status values that this host sends.
pub(super) mod scsi {
    pub(in super::super) const GOOD: u8 = 0x00;
    pub(in super::super) const CHECK_CONDITION: u8 = 0x02;
    pub(in super::super) const RESERVATION_CONFLICT: u8 = 0x18;
    pub(in super::super) const TASK_SET_FULL: u8 = 0x28;
}
