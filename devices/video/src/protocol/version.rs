//! Versions of synthvid.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A version of the protocol: 3.0 to 3.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Version {
    minor: u16,
}

impl Version {
    /// The newest version: Windows 10 and current Linux.
    pub const NEWEST: Version = Version { minor: 5 };

    const MAJOR: u16 = 3;

    /// Returns the version of a request: the minor version is in the upper half. `None`: this
    /// device does not support it.
    pub fn from_word(word: u32) -> Option<Self> {
        let [low, high] = [word & 0xFFFF, word >> 16].map(|half| u16::try_from(half).ok());
        (low? == Self::MAJOR).then_some(high?).and_then(|minor| Self::try_from(minor).ok())
    }

    /// Returns the version as requests have it.
    pub fn word(self) -> u32 {
        u32::from(self.minor) << 16 | u32::from(Self::MAJOR)
    }
}

impl TryFrom<u16> for Version {
    type Error = &'static str;

    fn try_from(minor: u16) -> Result<Self, Self::Error> {
        if minor <= Self::NEWEST.minor { Ok(Self { minor }) } else { Err("unknown version") }
    }
}

impl From<Version> for u16 {
    fn from(version: Version) -> u16 {
        version.minor
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", Self::MAJOR, self.minor)
    }
}
