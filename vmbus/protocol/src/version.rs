//! Protocol versions (vmbus-core section 3).

use core::fmt;

/// A protocol version that this host speaks. Anything else is refused exactly, never rounded down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Windows 8, Server 2012: dedicated event flags, target VP, subchannels.
    V2_4,
    /// Windows 8.1: the target VP of INITIATE_CONTACT is honoured.
    V3_0,
    /// Windows 10 1507: reserved channels, TL_CONNECT.
    V4_0,
    /// 1709: MODIFYCHANNEL, TL_CONNECT_RESULT.
    V4_1,
    /// INITIATE_CONTACT carries the SINT; the response carries the message connection id.
    V5_0,
    /// 1803: INITIATE_CONTACT's VTL means something.
    V5_1,
    /// 1809: TL_CONNECT with a silo.
    V5_2,
    /// Server 2022: MODIFYCHANNEL_RESPONSE.
    V5_3,
    /// Server 2025 era: feature flags.
    V6_0,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 9] = [
        Self::V2_4,
        Self::V3_0,
        Self::V4_0,
        Self::V4_1,
        Self::V5_0,
        Self::V5_1,
        Self::V5_2,
        Self::V5_3,
        Self::V6_0,
    ];

    /// The word on the wire: major << 16 | minor.
    #[must_use]
    pub const fn word(self) -> u32 {
        match self {
            Self::V2_4 => 0x0002_0004,
            Self::V3_0 => 0x0003_0000,
            Self::V4_0 => 0x0004_0000,
            Self::V4_1 => 0x0004_0001,
            Self::V5_0 => 0x0005_0000,
            Self::V5_1 => 0x0005_0001,
            Self::V5_2 => 0x0005_0002,
            Self::V5_3 => 0x0005_0003,
            Self::V6_0 => 0x0006_0000,
        }
    }

    /// The version with exactly this word.
    #[must_use]
    pub fn from_word(word: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.word() == word)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.word() >> 16, self.word() & 0xFFFF)
    }
}
