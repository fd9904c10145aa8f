//! GUIDs in their Microsoft binary form.

use core::fmt;
use core::str::FromStr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A GUID: u32, u16, u16 little-endian, then 8 bytes. Ordered by its bytes on the wire.
#[derive(
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Guid([u8; 16]);

impl Guid {
    /// From the fields as they are written: `{data1}-{data2}-{data3}-{data4[0..2]}-{data4[2..8]}`.
    #[must_use]
    pub const fn new(data1: u32, data2: u16, data3: u16, data4: [u8; 8]) -> Self {
        let [a0, a1, a2, a3] = data1.to_le_bytes();
        let [b0, b1] = data2.to_le_bytes();
        let [c0, c1] = data3.to_le_bytes();
        let [d0, d1, d2, d3, d4, d5, d6, d7] = data4;
        Self([a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7])
    }

    /// From the 16 bytes on the wire.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes on the wire.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, rest @ ..] = self.0;
        let data1 = u32::from_le_bytes([a0, a1, a2, a3]);
        let (data2, data3) = (u16::from_le_bytes([b0, b1]), u16::from_le_bytes([c0, c1]));
        write!(f, "{data1:08x}-{data2:04x}-{data3:04x}-{d0:02x}{d1:02x}-")?;
        rest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not a GUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseGuidError;

impl fmt::Display for ParseGuidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a GUID: expected xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx in hexadecimal")
    }
}

impl core::error::Error for ParseGuidError {}

impl FromStr for Guid {
    type Err = ParseGuidError;

    fn from_str(text: &str) -> Result<Self, ParseGuidError> {
        let mut parts = text.split('-');
        let mut part = |len: usize| {
            let part = parts.next().filter(|part| part.len() == len).ok_or(ParseGuidError)?;
            if part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                u64::from_str_radix(part, 16).map_err(|_| ParseGuidError)
            } else {
                Err(ParseGuidError)
            }
        };
        let data1 = u32::try_from(part(8)?).map_err(|_| ParseGuidError)?;
        let data2 = u16::try_from(part(4)?).map_err(|_| ParseGuidError)?;
        let data3 = u16::try_from(part(4)?).map_err(|_| ParseGuidError)?;
        let (high, low) = (part(4)?, part(12)?);
        let data4 = (high << 48) | low;
        if parts.next().is_some() {
            return Err(ParseGuidError);
        }
        Ok(Self::new(data1, data2, data3, data4.to_be_bytes()))
    }
}

/// Interface (class) GUIDs of the devices a VMBus may carry (vmbus-core section 12).
pub mod class {
    use super::Guid;

    /// SCSI controller.
    pub const SCSI: Guid =
        Guid::new(0xba61_63d9, 0x04a1, 0x4d29, [0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f]);
    /// IDE storage accelerator.
    pub const IDE: Guid =
        Guid::new(0x3241_2632, 0x86cb, 0x44a2, [0x9b, 0x5c, 0x50, 0xd1, 0x41, 0x73, 0x54, 0xf5]);
    /// Synthetic NIC.
    pub const NETWORK: Guid =
        Guid::new(0xf861_5163, 0xdf3e, 0x46c5, [0x91, 0x3f, 0xf2, 0xd2, 0xf9, 0x65, 0xed, 0x0e]);
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn test_guid_text_and_bytes_round_trip() {
        let text = "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f";
        assert_eq!(text.parse::<Guid>(), Ok(class::SCSI));
        assert_eq!(class::SCSI.to_string(), text);
        assert_eq!(class::SCSI.to_bytes()[..6], [0xd9, 0x63, 0x61, 0xba, 0xa1, 0x04]);
        assert_eq!(Guid::from_bytes(class::SCSI.to_bytes()), class::SCSI);
    }

    #[test]
    fn test_guid_text_of_wrong_form_is_refused() {
        for text in [
            "",
            "ba6163d9",
            "ba6163d9-04a1-4d29-b605-72e2ffb1dc7",
            "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f-",
            "+a6163d9-04a1-4d29-b605-72e2ffb1dc7f",
        ] {
            assert_eq!(text.parse::<Guid>(), Err(ParseGuidError), "{text}");
        }
    }
}
