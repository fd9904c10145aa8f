//! NTSTATUS, as a Windows caller gets it.

use core::fmt;

/// An NTSTATUS word. Success is 0 and everything else below 0x8000_0000; the statuses of this crate
/// are all listed here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NtStatus(pub u32);

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        impl NtStatus {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// Returns the status' name in the Windows headers, without `STATUS_`.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $($value => Some(stringify!($name)),)* _ => None }
            }
        }
    };
}

statuses! {
    /// Done.
    SUCCESS = 0;
    /// A packet did not fit the ring and was not queued.
    BUFFER_OVERFLOW = 0x8000_0005;
    /// The general failure, and the most frequent one of a host.
    UNSUCCESSFUL = 0xC000_0001;
    /// The handle does not exist.
    INVALID_HANDLE = 0xC000_0008;
    /// A parameter is invalid.
    INVALID_PARAMETER = 0xC000_000D;
    /// No device of that kind.
    NO_SUCH_DEVICE = 0xC000_000E;
    /// The answer is longer than the buffer for it.
    BUFFER_TOO_SMALL = 0xC000_0023;
    /// A quota of the host.
    QUOTA_EXCEEDED = 0xC000_0044;
    /// No version in common.
    REVISION_MISMATCH = 0xC000_0059;
    /// No memory, or more than the wire can describe.
    INSUFFICIENT_RESOURCES = 0xC000_009A;
    /// Not connected.
    DEVICE_NOT_CONNECTED = 0xC000_009D;
    /// No answer will come.
    IO_TIMEOUT = 0xC000_00B5;
    /// First parameter; for the configuration calls: not in this state.
    INVALID_PARAMETER_1 = 0xC000_00EF;
    /// Second parameter.
    INVALID_PARAMETER_2 = 0xC000_00F0;
    /// Third parameter.
    INVALID_PARAMETER_3 = 0xC000_00F1;
    /// Fourth parameter.
    INVALID_PARAMETER_4 = 0xC000_00F2;
    /// Fifth parameter.
    INVALID_PARAMETER_5 = 0xC000_00F3;
    /// Sixth parameter.
    INVALID_PARAMETER_6 = 0xC000_00F4;
    /// Seventh parameter.
    INVALID_PARAMETER_7 = 0xC000_00F5;
    /// Taken back before it was done.
    CANCELLED = 0xC000_0120;
    /// Not in this state.
    INVALID_DEVICE_STATE = 0xC000_0184;
    /// The peer broke the protocol.
    DEVICE_PROTOCOL_ERROR = 0xC000_0186;
    /// The size is invalid.
    INVALID_BUFFER_SIZE = 0xC000_0206;
    /// The channel was removed, or is being removed.
    DEVICE_REMOVED = 0xC000_02B6;
}

impl NtStatus {
    /// `NT_SUCCESS`: success and information, no warning, no error.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 < 0x8000_0000
    }
}

impl fmt::Display for NtStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "STATUS_{name} ({:#010x})", self.0),
            None => write!(f, "NTSTATUS {:#010x}", self.0),
        }
    }
}

impl fmt::Debug for NtStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for NtStatus {}
