//! Status codes: NTSTATUS of the packet, SRB status of the port driver, SCSI status of the device.

use vmbus_protocol::wire_enum;

wire_enum! {
    /// The NTSTATUS of a reply packet. Windows evaluates it; Linux only logs it.
    pub enum NtStatus: u32 {
        /// STATUS_SUCCESS.
        Success = 0,
        /// STATUS_BUFFER_OVERFLOW: the buffer was too small.
        BufferOverflow = 0x8000_0005,
        /// STATUS_DEVICE_BUSY: the guest must try again.
        DeviceBusy = 0x8000_0011,
        /// STATUS_INVALID_PARAMETER: the request is invalid.
        InvalidParameter = 0xC000_000D,
        /// STATUS_REVISION_MISMATCH: the protocol version or revision is unknown.
        RevisionMismatch = 0xC000_0059,
        /// STATUS_DEVICE_DOES_NOT_EXIST: no device has this address.
        DeviceDoesNotExist = 0xC000_00C0,
        /// STATUS_INVALID_DEVICE_STATE: the operation is out of order.
        InvalidDeviceState = 0xC000_0184,
        /// STATUS_IO_DEVICE_ERROR: the device reports an error.
        IoDeviceError = 0xC000_0185,
    }
}

/// SRB status values that this host sends. Linux accepts only [`SUCCESS`](srb::SUCCESS) itself as
/// success.
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
