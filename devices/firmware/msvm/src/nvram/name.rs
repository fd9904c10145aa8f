//! Names of variables.

use std::fmt;

use super::MAX_NAME_BYTES;

/// A name: 16-bit characters with a final NUL, as the guest wrote them. Not empty, and at most 2
/// KiB long.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// Returns the name at the start of `bytes`, up to its NUL. `None`: no NUL, empty, or too long.
    #[must_use]
    pub fn from_guest(bytes: &[u8]) -> Option<Name> {
        let characters = bytes.chunks_exact(2).position(|character| character == [0, 0])?;
        let len = 2 * (characters + 1);
        (characters > 0 && len <= MAX_NAME_BYTES).then(|| Name(bytes[..len].to_vec()))
    }

    /// Returns the name with these characters, which must be few, and without NUL.
    pub(crate) fn ascii(text: &str) -> Name {
        Name(text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect())
    }

    /// Returns the bytes with the final NUL.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.0.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        let characters = char::decode_utf16(units.take_while(|unit| *unit != 0));
        for character in characters.map(|c| c.unwrap_or('\u{FFFD}')) {
            write!(f, "{}", character.escape_debug())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
