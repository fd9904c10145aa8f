//! NTSTATUS of a packet. `synthvm_storvsc` has the statuses of port driver and device.

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
