//! ZRLE: tiles of 64 by 64 pixels as palettes, runs or pixels, and zlib over all of them. Source:
//! RFC 6143, 7.7.6.

use super::bits::put_bits;
use super::deflate::Deflater;
use super::encoded::{Encoded, LengthFormat, Part, ZRLE_STREAM};
use super::palette::Palette;
use crate::protocol::PixelWriter;

/// Pixels of a side of a tile.
const SIDE: usize = 64;

/// The most colours of a palette without runs.
const MAX_PACKED: usize = 16;

/// The most colours of a palette with runs.
const MAX_RUN_COLOURS: usize = 127;

/// Encodes values of the writer's format.
pub(super) fn encode(
    values: &[u32],
    width: usize,
    writer: &PixelWriter,
    level: u8,
    deflater: &mut Deflater,
) -> Encoded {
    let height = values.len() / width;
    let mut bytes = Vec::with_capacity(values.len() * writer.compact_size() / 2);
    let mut tile = Vec::with_capacity(SIDE * SIDE);
    for top in (0..height).step_by(SIDE) {
        for left in (0..width).step_by(SIDE) {
            let right = (left + SIDE).min(width);
            tile.clear();
            for y in top..(top + SIDE).min(height) {
                tile.extend_from_slice(&values[y * width + left..y * width + right]);
            }
            put_tile(&tile, right - left, writer, &mut bytes);
        }
    }
    let mut data = Vec::with_capacity(bytes.len() / 4);
    deflater.deflate(&bytes, level, &mut data);
    Encoded(vec![Part::Deflated { stream: ZRLE_STREAM, length: LengthFormat::Word, data }])
}

/// Appends a tile in the form that is estimated to be the shortest.
fn put_tile(tile: &[u32], width: usize, writer: &PixelWriter, out: &mut Vec<u8>) {
    let size = writer.compact_size();
    let Some(&first) = tile.first() else { return };
    let Some(&second) = tile.iter().find(|value| **value != first) else {
        out.push(1);
        writer.put_compact(first, out);
        return;
    };
    // Text. As bits it is shorter than as runs, of which each has at least a byte.
    if has_two_colours(tile, first, second)
        && width.div_ceil(8) * (tile.len() / width.max(1)) <= count_runs(tile)
    {
        put_two_colours(tile, width, [first, second], writer, out);
        return;
    }
    let palette = Palette::of(tile.iter().copied(), MAX_RUN_COLOURS);
    let (mut runs, mut singles) = (0, 0);
    for run in tile.chunk_by(|one, next| one == next) {
        runs += 1 + run.len() / 255;
        singles += usize::from(run.len() == 1);
    }
    // Bytes of pixels, of runs, of a palette with runs, of a palette without.
    let plain = tile.len() * size;
    let plain_runs = runs * (size + 1);
    let palette_size = palette.as_ref().map_or(0, |palette| palette.colours().len());
    let palette_runs = palette_size * size + 2 * runs - singles;
    let packed_rows = tile.len() / width.max(1);
    let packed = palette_size * size + (width * bits(palette_size)).div_ceil(8) * packed_rows;
    match palette {
        Some(palette)
            if palette_size <= MAX_PACKED && packed <= palette_runs.min(plain).min(plain_runs) =>
        {
            put_packed(tile, width, &palette, writer, out);
        }
        Some(palette) if palette_runs < plain.min(plain_runs) => {
            put_palette_runs(tile, &palette, writer, out);
        }
        _ if plain_runs < plain => {
            out.push(128);
            for run in tile.chunk_by(|one, next| one == next) {
                writer.put_compact(run[0], out);
                put_run(run.len(), out);
            }
        }
        _ => {
            out.push(0);
            tile.iter().for_each(|value| writer.put_compact(*value, out));
        }
    }
}

/// Returns whether all pixels have one of two colours.
fn has_two_colours(tile: &[u32], first: u32, second: u32) -> bool {
    // Compares a part as a whole, without a branch for each pixel.
    tile.chunks(SIDE).all(|part| {
        let is_other = |value: &u32| u32::from(*value != first) & u32::from(*value != second);
        part.iter().map(is_other).fold(0, |all, one| all | one) == 0
    })
}

fn count_runs(tile: &[u32]) -> usize {
    let ends = tile.iter().zip(&tile[1..]).map(|(one, next)| u32::from(one != next));
    1 + ends.sum::<u32>() as usize
}

/// Appends a tile of two colours as a bit for each pixel.
fn put_two_colours(
    tile: &[u32],
    width: usize,
    colours: [u32; 2],
    writer: &PixelWriter,
    out: &mut Vec<u8>,
) {
    out.push(2);
    colours.iter().for_each(|colour| writer.put_compact(*colour, out));
    put_bits(tile, width, colours[1], out);
}

/// Returns the bits of an index into a palette of at most 16 colours.
fn bits(colours: usize) -> usize {
    match colours {
        ..=2 => 1,
        3..=4 => 2,
        _ => 4,
    }
}

fn put_packed(
    tile: &[u32],
    width: usize,
    palette: &Palette,
    writer: &PixelWriter,
    out: &mut Vec<u8>,
) {
    let colours = palette.colours();
    out.push(colours.len() as u8);
    colours.iter().for_each(|colour| writer.put_compact(*colour, out));
    let bits = bits(colours.len());
    let mut index = palette.indices();
    for row in tile.chunks(width) {
        for group in row.chunks(8 / bits) {
            let indices = group.iter().enumerate();
            let byte =
                indices.fold(0, |byte, (at, value)| byte | index(*value) << (8 - bits * (at + 1)));
            out.push(byte);
        }
    }
}

fn put_palette_runs(tile: &[u32], palette: &Palette, writer: &PixelWriter, out: &mut Vec<u8>) {
    let colours = palette.colours();
    out.push(128 + colours.len() as u8);
    colours.iter().for_each(|colour| writer.put_compact(*colour, out));
    for run in tile.chunk_by(|one, next| one == next) {
        let index = palette.index(run[0]);
        match run.len() {
            1 => out.push(index),
            length => {
                out.push(index | 128);
                put_run(length, out);
            }
        }
    }
}

/// Appends the length of a run: the sum of all bytes, plus one.
fn put_run(length: usize, out: &mut Vec<u8>) {
    let rest = length - 1;
    out.extend(std::iter::repeat_n(255, rest / 255));
    out.push((rest % 255) as u8);
}
