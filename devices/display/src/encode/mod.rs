//! Rectangles of pixels in the encodings of viewers.
//!
//! An encoded rectangle depends on nothing but its pixels, the format and the encoding: data for
//! zlib streams refers to no earlier data. So it is encoded once for all viewers that want it, and
//! a viewer needs no compressor of its own.

mod cache;
mod deflate;
mod palette;
mod raw;
#[cfg(test)]
mod tests;
mod tight;
mod zrle;

use std::sync::Arc;

pub(crate) use cache::{EncodeCache, Key};
pub(crate) use tight::MAX_WIDTH as TIGHT_MAX_WIDTH;

use deflate::Deflater;

use crate::protocol::{PixelWriter, encoding};

/// The zlib streams of a viewer that are in use: one for ZRLE, one for Tight.
const STREAMS: usize = 2;
const ZRLE_STREAM: usize = 0;
const TIGHT_STREAM: usize = 1;

/// The two bytes at the start of a zlib stream: deflate with a window of 32 KiB.
const ZLIB_HEADER: [u8; 2] = [0x78, 0x01];

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

/// An encoded rectangle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Encoded(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Bytes(Vec<u8>),
    /// A part of a zlib stream, which its length precedes. The first part has also the stream's
    /// header.
    Deflated {
        stream: usize,
        length: LengthFormat,
        data: Vec<u8>,
    },
}

#[derive(Clone, Copy, Debug)]
enum LengthFormat {
    /// 32 bits.
    Word,
    /// One to three bytes of seven bits, the lowest first.
    Compact,
}

/// The zlib streams of a viewer that have begun.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Streams([bool; STREAMS]);

impl Encoded {
    /// Returns the number of bytes, without lengths and headers of zlib streams.
    fn len(&self) -> usize {
        let bytes = |part: &Part| match part {
            Part::Bytes(bytes) => bytes.len(),
            Part::Deflated { data, .. } => data.len(),
        };
        self.0.iter().map(bytes).sum()
    }

    /// Appends the rectangle for the viewer with `streams`.
    pub(crate) fn append(&self, streams: &mut Streams, out: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Bytes(bytes) => out.extend_from_slice(bytes),
                Part::Deflated { stream, length, data } => {
                    let has_begun = std::mem::replace(&mut streams.0[*stream], true);
                    let header = if has_begun { &[][..] } else { &ZLIB_HEADER };
                    put_length(header.len() + data.len(), *length, out);
                    out.extend_from_slice(header);
                    out.extend_from_slice(data);
                }
            }
        }
    }
}

fn put_length(length: usize, format: LengthFormat, out: &mut Vec<u8>) {
    match format {
        LengthFormat::Word => out.extend(u32::try_from(length).unwrap_or(0).to_be_bytes()),
        LengthFormat::Compact => {
            let low = (length & 0x7F) as u8;
            let middle = (length >> 7 & 0x7F) as u8;
            match length {
                ..0x80 => out.push(low),
                0x80..0x4000 => out.extend([low | 0x80, middle]),
                0x4000.. => out.extend([low | 0x80, middle | 0x80, (length >> 14) as u8]),
            }
        }
    }
}

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
