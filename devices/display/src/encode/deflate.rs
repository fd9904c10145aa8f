//! Deflate without a history: each call's output refers to no earlier one.

use std::fmt;

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, compress_to_output, create_comp_flags_from_zip_params,
};

/// Bits of the window: 32 KiB. Negative: without a zlib header.
const WINDOW_BITS: i32 = -15;

/// Compresses parts of zlib streams.
#[derive(Default)]
pub(crate) struct Deflater {
    /// A compressor of each level, made when it is first used.
    levels: [Option<Box<CompressorOxide>>; 10],
}

impl Deflater {
    /// Appends compressed bytes that end at a byte of the stream.
    pub(crate) fn deflate(&mut self, bytes: &[u8], level: u8, out: &mut Vec<u8>) {
        let level = level.min(9);
        let compressor = self.levels[usize::from(level)].get_or_insert_with(|| {
            let flags = create_comp_flags_from_zip_params(level.into(), WINDOW_BITS, 0);
            Box::new(CompressorOxide::new(flags))
        });
        // A full flush forgets the history, and clears less memory than a reset.
        compress_to_output(compressor, bytes, TDEFLFlush::Full, |part: &[u8]| {
            out.extend_from_slice(part);
            true
        });
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").finish_non_exhaustive()
    }
}
