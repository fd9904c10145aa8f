//! Resolutions, and the layout of a frame buffer in video memory.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::limits::MAX_RESOLUTIONS;

/// Bytes of a pixel: blue, green, red, unused.
const PIXEL: u64 = 4;

/// A width and a height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resolution {
    /// Pixels of a row.
    pub width: u16,
    /// Number of rows.
    pub height: u16,
}

/// The resolutions that the device offers besides the preferred one, as far as video memory holds
/// them.
pub const RESOLUTIONS: [Resolution; 17] = [
    Resolution::new(640, 480),
    Resolution::new(800, 600),
    Resolution::new(1024, 768),
    Resolution::new(1152, 864),
    Resolution::new(1280, 720),
    Resolution::new(1280, 800),
    Resolution::new(1280, 1024),
    Resolution::new(1366, 768),
    Resolution::new(1440, 900),
    Resolution::new(1600, 900),
    Resolution::new(1600, 1200),
    Resolution::new(1680, 1050),
    Resolution::new(1920, 1080),
    Resolution::new(1920, 1200),
    Resolution::new(2560, 1440),
    Resolution::new(2560, 1600),
    Resolution::new(3840, 2160),
];

impl Resolution {
    /// The largest resolution: 4K.
    pub const MAX: Resolution = Resolution::new(3840, 2160);
    /// The smallest resolution.
    pub const MIN: Resolution = Resolution::new(320, 200);

    /// Returns `width` by `height` pixels.
    pub const fn new(width: u16, height: u16) -> Self {
        Self { width, height }
    }

    /// Returns the bytes of a frame.
    pub fn bytes(self) -> u64 {
        u64::from(self.width) * u64::from(self.height) * PIXEL
    }

    /// Checks the resolution for video memory of `vram` bytes.
    ///
    /// # Errors
    /// [`ResolutionError`].
    pub fn check(self, vram: u64) -> Result<(), ResolutionError> {
        let (width, height) = (self.width, self.height);
        let is_within = (Self::MIN.width..=Self::MAX.width).contains(&width)
            && (Self::MIN.height..=Self::MAX.height).contains(&height);
        match (is_within, self.bytes() <= vram) {
            (false, _) => Err(ResolutionError::OutOfRange(self)),
            (true, false) => Err(ResolutionError::TooLarge(self)),
            (true, true) => Ok(()),
        }
    }
}

/// The error of an invalid resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolutionError {
    /// Below [`Resolution::MIN`] or above [`Resolution::MAX`].
    #[error("a resolution is 320x200 to 3840x2160, not {0}")]
    OutOfRange(Resolution),
    /// Video memory does not hold a frame.
    #[error("a frame of {0} does not fit into video memory")]
    TooLarge(Resolution),
    /// The text is not WIDTHxHEIGHT.
    #[error("a resolution is written WIDTHxHEIGHT, for example 1280x1024")]
    Syntax,
}

impl fmt::Display for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl FromStr for Resolution {
    type Err = ResolutionError;

    fn from_str(text: &str) -> Result<Self, ResolutionError> {
        let number = |text: &str| -> Option<u16> {
            text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
        };
        let (width, height) = text.split_once('x').ok_or(ResolutionError::Syntax)?;
        let (width, height) = (number(width), number(height));
        Ok(Self::new(width.ok_or(ResolutionError::Syntax)?, height.ok_or(ResolutionError::Syntax)?))
    }
}

/// Returns the resolutions to offer over video memory of `vram` bytes, the preferred one first.
pub fn resolutions(preferred: Resolution, vram: u64) -> Vec<Resolution> {
    let others = RESOLUTIONS.into_iter().filter(|one| *one != preferred);
    let all = std::iter::once(preferred).chain(others);
    all.filter(|one| one.bytes() <= vram).take(MAX_RESOLUTIONS).collect()
}

/// The layout of the frame in video memory: 32 bits a pixel, as blue, green, red and an unused
/// byte. A mode lies within the video memory for which it was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mode {
    width: u32,
    height: u32,
    stride: u32,
    offset: u32,
}

/// The error of a mode that the device cannot show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModeError {
    /// There are no pixels.
    #[error("no pixels")]
    Empty,
    /// Not 32 bits a pixel.
    #[error("{0} bits a pixel")]
    Depth(u8),
    /// A row does not hold its pixels.
    #[error("a stride of {stride} bytes for {width} pixels")]
    Stride {
        /// Bytes from row to row.
        stride: u32,
        /// Pixels of a row.
        width: u32,
    },
    /// The frame ends behind video memory.
    #[error("a frame that ends at byte {end} of video memory")]
    End {
        /// The first byte after the frame.
        end: u64,
    },
}

impl Mode {
    /// Checks a mode for video memory of `vram` bytes. `stride` and `offset` are in bytes.
    ///
    /// # Errors
    /// [`ModeError`].
    pub fn new(
        (width, height): (u32, u32),
        depth: u8,
        stride: u32,
        offset: u32,
        vram: u64,
    ) -> Result<Self, ModeError> {
        if width == 0 || height == 0 {
            return Err(ModeError::Empty);
        }
        if depth != 32 {
            return Err(ModeError::Depth(depth));
        }
        if u64::from(stride) < u64::from(width) * PIXEL {
            return Err(ModeError::Stride { stride, width });
        }
        // At most 2^64 - 2^32: no overflow.
        let end = u64::from(offset) + u64::from(stride) * u64::from(height);
        if end > vram {
            Err(ModeError::End { end })
        } else {
            Ok(Self { width, height, stride, offset })
        }
    }

    /// Checks a mode that was saved.
    ///
    /// # Errors
    /// [`ModeError`].
    pub fn check(self, vram: u64) -> Result<Self, ModeError> {
        Self::new((self.width, self.height), 32, self.stride, self.offset, vram)
    }

    /// Returns the pixels of a row.
    pub fn width(self) -> u32 {
        self.width
    }

    /// Returns the number of rows.
    pub fn height(self) -> u32 {
        self.height
    }

    /// Returns the bytes from the start of a row to the start of the next one.
    pub fn stride(self) -> u32 {
        self.stride
    }

    /// Returns the offset of the first pixel in video memory, in bytes.
    pub fn offset(self) -> u32 {
        self.offset
    }
}
