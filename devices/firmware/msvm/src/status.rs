//! The outcome of a request, as the firmware reads it.

use vmbus_protocol::wire_enum;

wire_enum! {
    /// An EFI status without its error bit, as the descriptors of this interface have it (spec
    /// firmware-windows section A5.1).
    pub enum Status: u64 {
        /// The request was performed.
        Success = 0,
        /// A name, an attribute or a length is not allowed.
        InvalidParameter = 2,
        /// The host has no such function.
        Unsupported = 3,
        /// The guest's buffer is too small; the descriptor has the needed size.
        BufferTooSmall = 5,
        /// The host could not store the variable, or a buffer is not in RAM.
        DeviceError = 7,
        /// The variable is read-only.
        WriteProtected = 8,
        /// The store is full.
        OutOfResources = 9,
        /// There is no such variable, or none follows.
        NotFound = 14,
        /// The signature of an authenticated write is not valid for the variable.
        SecurityViolation = 26,
    }
}
