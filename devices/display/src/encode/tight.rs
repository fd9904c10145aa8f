//! Tight without JPEG: one colour, a palette, or pixels, and zlib. Source: rfbproto, 7.7.5.

use super::bits::put_bits;
use super::deflate::Deflater;
use super::encoded::{Encoded, LengthFormat, Part, TIGHT_STREAM};
use super::palette::{MAX_COLOURS, Palette};
use crate::protocol::PixelWriter;

/// Control byte: one colour.
const FILL: u8 = 0x80;
/// Control byte: the first stream, and no filter.
const COPY: u8 = 0x00;
/// Control byte: the first stream, and a filter follows.
const FILTER: u8 = 0x40;
/// The filter with a palette.
const PALETTE: u8 = 1;

/// Data below this length is not compressed.
const MIN_COMPRESSED: usize = 12;

/// The widest rectangle: the maximum that viewers must accept.
pub(crate) const MAX_WIDTH: u16 = 2048;

/// The highest rectangle. A palette is for a whole rectangle, so a third colour somewhere makes
/// bytes of what could be bits.
pub(crate) const MAX_HEIGHT: u16 = 64;

/// Encodes values of the writer's format.
pub(super) fn encode(
    values: &[u32],
    width: usize,
    writer: &PixelWriter,
    level: u8,
    deflater: &mut Deflater,
) -> Encoded {
    // A palette pays only for more pixels than colours.
    let limit = MAX_COLOURS.min(values.len() / 2).max(1);
    let mut head = Vec::new();
    let Some(palette) = Palette::of(values.iter().copied(), limit) else {
        head.push(COPY);
        let mut bytes = Vec::with_capacity(values.len() * writer.tight_size());
        values.iter().for_each(|value| writer.put_tight(*value, &mut bytes));
        return finish(head, bytes, level, deflater);
    };
    let colours = palette.colours();
    if let [colour] = colours {
        head.push(FILL);
        writer.put_tight(*colour, &mut head);
        return Encoded(vec![Part::Bytes(head)]);
    }
    head.extend([FILTER, PALETTE, (colours.len() - 1) as u8]);
    colours.iter().for_each(|colour| writer.put_tight(*colour, &mut head));
    let mut bytes = Vec::with_capacity(values.len());
    match colours.len() {
        2 => {
            put_bits(values, width, colours[1], &mut bytes);
        }
        _ => {
            let mut index = palette.indices();
            bytes.extend(values.iter().map(|value| index(*value)));
        }
    }
    finish(head, bytes, level, deflater)
}

/// Adds the data after the head, compressed if it is not too short.
fn finish(mut head: Vec<u8>, bytes: Vec<u8>, level: u8, deflater: &mut Deflater) -> Encoded {
    if bytes.len() < MIN_COMPRESSED {
        head.extend(bytes);
        return Encoded(vec![Part::Bytes(head)]);
    }
    let mut data = Vec::with_capacity(bytes.len() / 4);
    deflater.deflate(&bytes, level, &mut data);
    let deflated = Part::Deflated { stream: TIGHT_STREAM, length: LengthFormat::Compact, data };
    Encoded(vec![Part::Bytes(head), deflated])
}
