//! The encoder of all viewers.

use std::sync::Arc;

use super::deflate::Deflater;
use super::encoded::Encoded;
use super::encoding::Encoding;
use super::{raw, tight, zrle};
use crate::protocol::PixelWriter;

/// Encodes rectangles.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    deflater: Deflater,
    pixels: Vec<u32>,
}

impl Encoder {
    /// Encodes a rectangle that is `width` wide and not empty. `read` gives its pixels in the
    /// server's format, row by row. `level` is a compression level from 0 to 9.
    pub(crate) fn encode(
        &mut self,
        read: impl FnOnce(&mut Vec<u32>),
        width: usize,
        encoding: Encoding,
        writer: &PixelWriter,
        level: u8,
    ) -> Arc<Encoded> {
        let Self { deflater, pixels } = self;
        read(pixels);
        if !writer.is_native() {
            pixels.iter_mut().for_each(|pixel| *pixel = writer.value(*pixel));
        }
        Arc::new(match encoding {
            Encoding::Raw => raw::encode(pixels, writer),
            Encoding::Zrle => zrle::encode(pixels, width, writer, level, deflater),
            Encoding::Tight => tight::encode(pixels, width, writer, level, deflater),
        })
    }
}
