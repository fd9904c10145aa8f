//! Protocol versions (spec storvsc section 2).

use super::limits::{MAX_PACKET, V1_PACKET};

/// A version of the storage protocol, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Version {
    /// 2.0, Windows Server 2008.
    Win6 = 0x0200,
    /// 4.2, Windows 7: adds ENUMERATE_BUS.
    Win7 = 0x0402,
    /// 5.1, Windows 8: adds longer packets and subchannels.
    Win8 = 0x0501,
    /// 6.0, Windows 8.1: guests filter no commands.
    Blue = 0x0600,
    /// 6.2, Windows 10: Linux uses WRITE SAME.
    Win10 = 0x0602,
}

impl Version {
    /// Returns the version encoded as `word` (major << 8 | minor), if it is known.
    pub const fn from_word(word: u16) -> Option<Self> {
        Some(match word {
            0x0200 => Self::Win6,
            0x0402 => Self::Win7,
            0x0501 => Self::Win8,
            0x0600 => Self::Blue,
            0x0602 => Self::Win10,
            _ => return None,
        })
    }

    /// Returns major << 8 | minor.
    pub const fn word(self) -> u16 {
        self as u16
    }

    /// Returns the size in bytes of unsolicited packets, which follows from the version.
    pub const fn packet_size(self) -> usize {
        if self.has_subchannels() { MAX_PACKET } else { V1_PACKET }
    }

    /// Returns true if CREATE_SUB_CHANNELS exists.
    pub const fn has_subchannels(self) -> bool {
        self as u16 >= Self::Win8 as u16
    }

    /// Returns true if ENUMERATE_BUS exists.
    pub const fn has_enumerate_bus(self) -> bool {
        self as u16 >= Self::Win7 as u16
    }
}
