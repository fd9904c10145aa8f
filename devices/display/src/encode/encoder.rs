//! The encoder of all viewers.

use std::sync::Arc;

use super::deflate::Deflater;
use super::encoded::{Encoded, Part};
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
        self.read(read, writer);
        let Self { deflater, pixels } = self;
        Arc::new(match encoding {
            Encoding::Raw => {
                let mut bytes = Vec::new();
                raw::encode(pixels, writer, &mut bytes);
                Encoded(vec![Part::Bytes(bytes)])
            }
            Encoding::Zrle => zrle::encode(pixels, width, writer, level, deflater),
            Encoding::Tight => tight::encode(pixels, width, writer, level, deflater),
        })
    }

    /// Appends a rectangle as it is, whose pixels `read` gives in the server's format.
    pub(crate) fn encode_raw(
        &mut self,
        read: impl FnOnce(&mut Vec<u32>),
        writer: &PixelWriter,
        out: &mut Vec<u8>,
    ) {
        self.read(read, writer);
        raw::encode(&self.pixels, writer, out);
    }

    /// Reads pixels as values of the writer's format.
    fn read(&mut self, read: impl FnOnce(&mut Vec<u32>), writer: &PixelWriter) {
        read(&mut self.pixels);
        if !writer.is_native() {
            self.pixels.iter_mut().for_each(|pixel| *pixel = writer.value(*pixel));
        }
    }
}
