//! The messages of RFB, as pure functions. Source: RFC 6143 and the community's rfbproto document.
//!
//! Numbers on the wire are big-endian.

mod area;
mod client;
pub mod encoding;
mod handshake;
mod pixel_format;
mod server;
#[cfg(test)]
mod tests;
mod vnc_auth;

pub use area::Area;
pub use client::{ClientMessage, ClientReader, MAX_ENCODINGS, ProtocolError};
pub use handshake::{Authenticator, Handshake, Refusal, SecurityType, Step, VERSION};
pub use pixel_format::{InvalidFormat, PixelFormat, PixelWriter};
pub use server::{
    RESIZE_FORWARDED, RESIZE_INVALID, RESIZE_PROHIBITED, SCREEN_ID, UpdateWriter, colour_map,
    end_of_continuous_updates, fence, server_init,
};
pub use vnc_auth::{CHALLENGE_BYTES, response};
