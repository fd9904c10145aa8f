//! Screenshots as PNG files.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use ::png::{BitDepth, ColorType, Compression, Encoder};
use synthvm_video::Frame;

/// Writes a frame to a file, which is created or replaced. Needs memory for one row of the frame.
pub(super) fn write(frame: &Frame, path: &Path) -> io::Result<()> {
    encode(frame, BufWriter::new(File::create(path)?))
}

/// Encodes a frame with 24 bits a pixel.
fn encode(frame: &Frame, to: impl Write) -> io::Result<()> {
    let mode = frame.mode();
    let mut encoder = Encoder::new(to, mode.width(), mode.height());
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    let mut writer = encoder.write_header()?;
    let mut stream = writer.stream_writer()?;
    let mut row = Vec::new();
    for y in 0..mode.height() {
        let pixels = frame.row(y).ok_or(io::ErrorKind::UnexpectedEof)?;
        row.resize(pixels.len(), 0);
        // The guest may draw at the same time: this copy is what the file has.
        pixels.copy_to(&mut row[..]);
        let (quads, _) = row.as_chunks::<4>();
        let line: Vec<u8> =
            quads.iter().flat_map(|[blue, green, red, _]| [*red, *green, *blue]).collect();
        stream.write_all(&line)?;
    }
    stream.finish()?;
    Ok(())
}
