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
    /// Reads a PNG file of 24 bits a pixel, or of 32, whose alpha is dropped.
    ///
    /// # Errors
    /// The file is no such picture.
    pub fn read(path: &Path) -> io::Result<Picture> {
        let decoder = png::Decoder::new(BufReader::new(File::open(path)?));
        let mut reader = decoder.read_info()?;
        let size = reader.output_buffer_size().ok_or(io::ErrorKind::InvalidData)?;
        let mut bytes = vec![0; size];
        let info = reader.next_frame(&mut bytes)?;
        let pixels = match (info.color_type, info.bit_depth) {
            (png::ColorType::Rgb, png::BitDepth::Eight) => bytes.as_chunks().0.to_vec(),
            (png::ColorType::Rgba, png::BitDepth::Eight) => {
                let (pixels, _) = bytes.as_chunks::<4>();
                pixels.iter().map(|[red, green, blue, _]| [*red, *green, *blue]).collect()
            }
            _ => {
                let message = "neither 24 bits a pixel nor 32";
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        };
        Ok(Picture { width: info.width, height: info.height, pixels })
    }
}
