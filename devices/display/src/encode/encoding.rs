//! The encodings of pixels.

use crate::protocol::encoding;

/// An encoding of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    Raw,
    Zrle,
    Tight,
}

impl Encoding {
    /// Returns the number of the encoding.
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Raw => encoding::RAW,
            Self::Zrle => encoding::ZRLE,
            Self::Tight => encoding::TIGHT,
        }
    }

    /// Returns the encoding with a number.
    pub(crate) fn from_number(number: i32) -> Option<Self> {
        [Self::Raw, Self::Zrle, Self::Tight].into_iter().find(|one| one.number() == number)
    }
}
