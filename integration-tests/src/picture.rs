//! Pictures of a guest's screen.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

/// A picture with 24 bits a pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels of a row.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
    /// Red, green and blue of each pixel, rows from the top.
    pub pixels: Vec<[u8; 3]>,
}

impl Picture {
    /// Reads a PNG file of that kind.
    ///
    /// # Errors
    /// The file is no such picture.
    pub fn read(path: &Path) -> io::Result<Picture> {
        let decoder = png::Decoder::new(BufReader::new(File::open(path)?));
        let mut reader = decoder.read_info()?;
        let size = reader.output_buffer_size().ok_or(io::ErrorKind::InvalidData)?;
        let mut bytes = vec![0; size];
        let info = reader.next_frame(&mut bytes)?;
        if (info.color_type, info.bit_depth) != (png::ColorType::Rgb, png::BitDepth::Eight) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not 24 bits a pixel"));
        }
        let (pixels, _) = bytes.as_chunks();
        Ok(Picture { width: info.width, height: info.height, pixels: pixels.to_vec() })
    }
}
