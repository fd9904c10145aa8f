//! Rectangles of pixels in the encodings of viewers.
//!
//! An encoded rectangle depends on nothing but its pixels, the format and the encoding: data for
//! zlib streams refers to no earlier data. So it is encoded once for all viewers that want it, and
//! a viewer needs no compressor of its own.

mod bits;
mod cache;
mod deflate;
mod encoded;
mod encoder;
mod encoding;
mod palette;
mod raw;
#[cfg(test)]
mod tests;
mod tight;
mod zrle;

pub(crate) use cache::{EncodeCache, Key};
pub(crate) use encoded::Streams;
pub(crate) use encoder::Encoder;
pub(crate) use encoding::Encoding;
pub(crate) use tight::{MAX_HEIGHT as TIGHT_MAX_HEIGHT, MAX_WIDTH as TIGHT_MAX_WIDTH};
