//! The messages of RFB, as pure functions. Source: RFC 6143 and the community's rfbproto document.
//!
//! Numbers on the wire are big-endian.

mod client;
mod handshake;
mod pixel_format;
mod server;
#[cfg(test)]
mod tests;
mod vnc_auth;

pub use client::{ClientMessage, ClientReader, MAX_ENCODINGS, ProtocolError};
pub use handshake::{Authenticator, Handshake, Refusal, SecurityType, Step, VERSION};
pub use pixel_format::{InvalidFormat, PixelFormat, PixelWriter};
pub use server::{
    RESIZE_FORWARDED, RESIZE_INVALID, RESIZE_PROHIBITED, SCREEN_ID, UpdateWriter, colour_map,
    end_of_continuous_updates, fence, server_init,
};
pub use vnc_auth::{CHALLENGE_BYTES, response};

/// Columns `x..x + width` of rows `y..y + height`, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Area {
    /// The first column.
    pub x: u16,
    /// The first row.
    pub y: u16,
    /// Number of columns.
    pub width: u16,
    /// Number of rows.
    pub height: u16,
}

impl Area {
    /// Returns the number of pixels.
    pub fn pixels(self) -> usize {
        usize::from(self.width) * usize::from(self.height)
    }

    /// Returns the part of the area on a screen of `width` by `height` pixels, which may be empty.
    pub fn clipped(self, width: u16, height: u16) -> Self {
        let (x, y) = (self.x.min(width), self.y.min(height));
        Self { x, y, width: self.width.min(width - x), height: self.height.min(height - y) }
    }
}

/// Numbers of encodings and of what a viewer says about itself with their numbers.
pub mod encoding {
    /// Pixels as they are.
    pub const RAW: i32 = 0;
    /// Tight: palettes, and zlib by rectangle.
    pub const TIGHT: i32 = 7;
    /// ZRLE: palettes and runs by tile, and zlib over all.
    pub const ZRLE: i32 = 16;
    /// The lowest compression level; nine more follow.
    pub const COMPRESSION_0: i32 = -256;
    /// The size of the screen.
    pub const DESKTOP_SIZE: i32 = -223;
    /// The position of the guest's pointer.
    pub const POINTER_POSITION: i32 = -232;
    /// The shape of the guest's pointer, as pixels and a mask.
    pub const CURSOR: i32 = -239;
    /// Extended key events of QEMU: scan codes.
    pub const EXTENDED_KEYS: i32 = -258;
    /// The keyboard's LEDs.
    pub const LEDS: i32 = -261;
    /// The size of the screen with the layout of its parts, and requests for another.
    pub const EXTENDED_DESKTOP_SIZE: i32 = -308;
    /// Fences.
    pub const FENCE: i32 = -312;
    /// Updates without requests.
    pub const CONTINUOUS_UPDATES: i32 = -313;
    /// The shape of the guest's pointer, with alpha.
    pub const CURSOR_WITH_ALPHA: i32 = -314;
    /// Pointer events with nine buttons.
    pub const EXTENDED_BUTTONS: i32 = -316;
}
