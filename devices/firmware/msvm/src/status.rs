//! The outcome of a request, as the firmware reads it.

/// An EFI status without its error bit, as the descriptors of this interface have it (spec
/// firmware-windows section A5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Status {
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
}

impl Status {
    /// Returns the number in a descriptor.
    #[must_use]
    pub const fn number(self) -> u64 {
        self as u64
    }
}
