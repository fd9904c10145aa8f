//! Tests of lengths and palettes; devices/display/tests decodes whole rectangles.

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush};

use super::deflate::Deflater;
use super::encoded::{Encoded, LengthFormat, Part, Streams, ZRLE_STREAM, put_length};
use super::palette::Palette;

#[test]
fn test_compact_length_has_one_to_three_bytes() {
    let compact = |length| {
        let mut out = Vec::new();
        put_length(length, LengthFormat::Compact, &mut out);
        out
    };
    assert_eq!(compact(0), [0]);
    assert_eq!(compact(0x7F), [0x7F]);
    assert_eq!(compact(0x80), [0x80, 0x01]);
    assert_eq!(compact(0x3FFF), [0xFF, 0x7F]);
    assert_eq!(compact(0x4000), [0x80, 0x80, 0x01]);
    assert_eq!(compact(0x3F_FFFF), [0xFF, 0xFF, 0xFF]);
}

#[test]
fn test_palette_has_each_colour_once_and_no_more_than_its_limit() {
    let colours = || (0..1000_u32).map(|at| at % 256 * 0x0100_0193);
    let palette = Palette::of(colours(), 256).unwrap();
    assert_eq!(palette.colours().len(), 256);
    for (at, colour) in colours().take(256).enumerate() {
        assert_eq!(usize::from(palette.index(colour)), at);
    }
    assert!(Palette::of(colours(), 255).is_none());
}

#[test]
fn test_first_part_of_a_stream_has_its_header_and_later_ones_do_not() {
    let part =
        Part::Deflated { stream: ZRLE_STREAM, length: LengthFormat::Word, data: vec![1, 2, 3] };
    let encoded = Encoded(vec![part]);
    let (mut streams, mut out) = (Streams::default(), Vec::new());
    encoded.append(&mut streams, &mut out);
    encoded.append(&mut streams, &mut out);
    assert_eq!(out, [0, 0, 0, 5, 0x78, 1, 1, 2, 3, 0, 0, 0, 3, 1, 2, 3]);
}

#[test]
fn test_compressed_data_refers_to_no_earlier_data() {
    let mut deflater = Deflater::default();
    let data: Vec<u8> = (0..5000_u32).map(|at| ((at * at) >> 7) as u8).collect();
    for level in 0..=9 {
        // Of the same data the second call would be a reference to the first.
        for _ in 0..2 {
            let (mut compressed, mut bytes) = (Vec::new(), vec![0; data.len() + 1]);
            deflater.deflate(&data, level, &mut compressed);
            let mut fresh = InflateState::new_boxed(DataFormat::Raw);
            let result = inflate(&mut fresh, &compressed, &mut bytes, MZFlush::Sync);
            assert_eq!(result.bytes_consumed, compressed.len(), "level {level}");
            assert_eq!(bytes[..result.bytes_written], data, "level {level}");
        }
    }
}
