//! The status of a response.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The status of a response: an HRESULT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status(pub u32);

impl Status {
    /// Success.
    pub const OK: Self = Self(0);
    /// E_FAIL: a failure of any kind, or the guest's own timeout.
    pub const FAIL: Self = Self(0x8000_4005);
    /// An enumeration has no more items; a key does not exist.
    pub const NO_MORE_ITEMS: Self = Self(0x8007_0103);
    /// The guest does not know the operation.
    pub const NOT_SUPPORTED: Self = Self(0x8007_0032);
    /// An argument is invalid; Linux: a key does not exist.
    pub const INVALID_ARGUMENT: Self = Self(0x8007_0057);
    /// No network adapter has this id.
    pub const NO_ADAPTER: Self = Self(0x8004_1002);
    /// The device is not connected.
    pub const NOT_CONNECTED: Self = Self(0x8007_048F);
    /// The machine is locked.
    pub const LOCKED: Self = Self(0x8007_04F7);
    /// The file exists.
    pub const EXISTS: Self = Self(0x8007_0050);
    /// The disk is full.
    pub const DISK_FULL: Self = Self(0x8007_0070);
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::OK => "success",
            Self::FAIL => "it failed",
            Self::NO_MORE_ITEMS => "there is no such item",
            Self::NOT_SUPPORTED => "it is not supported",
            Self::INVALID_ARGUMENT => "an argument is invalid",
            Self::NO_ADAPTER => "there is no such network adapter",
            Self::NOT_CONNECTED => "the device is not connected",
            Self::LOCKED => "the machine is locked",
            Self::EXISTS => "the file exists",
            Self::DISK_FULL => "the disk is full",
            Self(code) => return write!(f, "status {code:#010x}"),
        };
        write!(f, "{name} ({:#010x})", self.0)
    }
}
