//! Versions of the protocol.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A version of the protocol that this device supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum Version {
    /// 0.3: Windows 7.
    V0_3,
    /// 1.0: Windows 8, with information messages.
    V1_0,
    /// 2.0: Windows 10 and current Linux.
    V2_0,
}

impl Version {
    /// Returns the version of a request: the minor version is in the lower half. `None`: this
    /// device does not support it.
    pub const fn from_word(word: u32) -> Option<Self> {
        match word {
            0x0000_0003 => Some(Self::V0_3),
            0x0001_0000 => Some(Self::V1_0),
            0x0002_0000 => Some(Self::V2_0),
            _ => None,
        }
    }

    /// Returns the version as requests have it.
    pub const fn word(self) -> u32 {
        match self {
            Self::V0_3 => 0x0000_0003,
            Self::V1_0 => 0x0001_0000,
            Self::V2_0 => 0x0002_0000,
        }
    }
}

impl TryFrom<u32> for Version {
    type Error = &'static str;

    fn try_from(word: u32) -> Result<Self, Self::Error> {
        Self::from_word(word).ok_or("unknown version")
    }
}

impl From<Version> for u32 {
    fn from(version: Version) -> u32 {
        version.word()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word();
        write!(f, "{}.{}", word >> 16, word & 0xFFFF)
    }
}
