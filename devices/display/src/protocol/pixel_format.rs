//! Pixel formats of viewers, and pixels in them.

/// A viewer's pixel format, valid by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PixelFormat {
    /// 8, 16 or 32.
    bits: u8,
    depth: u8,
    is_big_endian: bool,
    /// Whether a pixel has its colours. Otherwise it is the index of one in the colour map.
    is_true_colour: bool,
    /// The largest value of red, green and blue.
    max: [u16; 3],
    /// The lowest bit of red, green and blue.
    shift: [u8; 3],
}

/// The error of a pixel format that RFB does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pixel format that RFB does not have")]
pub struct InvalidFormat;

impl PixelFormat {
    /// The server's format: 32 bits, little-endian, red in bits 16 to 23, blue in bits 0 to 7.
    pub const NATIVE: Self = Self {
        bits: 32,
        depth: 24,
        is_big_endian: false,
        is_true_colour: true,
        max: [0xFF; 3],
        shift: [16, 8, 0],
    };

    /// Reads a format as it is on the wire.
    ///
    /// # Errors
    /// [`InvalidFormat`]: not 8, 16 or 32 bits; colours that do not fit; a colour map for more than
    /// 8 bits.
    pub fn read(bytes: &[u8; 16]) -> Result<Self, InvalidFormat> {
        let [bits, depth, is_big_endian, is_true_colour, r1, r0, g1, g0, b1, b0, r, g, b, ..] =
            *bytes;
        let format = Self {
            bits,
            depth,
            is_big_endian: is_big_endian != 0,
            is_true_colour: is_true_colour != 0,
            max: [[r1, r0], [g1, g0], [b1, b0]].map(u16::from_be_bytes),
            shift: [r, g, b],
        };
        if !matches!(bits, 8 | 16 | 32) {
            return Err(InvalidFormat);
        }
        if !format.is_true_colour {
            // The colours of the map are those of this format.
            let map = Self { depth: 8, max: [7, 7, 3], shift: [0, 3, 6], ..format };
            return if bits == 8 { Ok(map) } else { Err(InvalidFormat) };
        }
        let fits = format.max.iter().zip(format.shift).all(|(max, shift)| {
            let width = max.count_ones();
            *max != 0 && max.trailing_ones() == width && u32::from(shift) + width <= bits.into()
        });
        if fits { Ok(format) } else { Err(InvalidFormat) }
    }

    /// Returns the format as it is on the wire.
    pub fn to_bytes(self) -> [u8; 16] {
        let [r, g, b] = self.max.map(u16::to_be_bytes);
        let [red, green, blue] = self.shift;
        let flags = [self.is_big_endian, self.is_true_colour].map(u8::from);
        let [big, colour] = flags;
        [
            self.bits, self.depth, big, colour, r[0], r[1], g[0], g[1], b[0], b[1], red, green,
            blue, 0, 0, 0,
        ]
    }

    /// Returns the bytes of a pixel: 1, 2 or 4.
    pub fn bytes(self) -> usize {
        usize::from(self.bits / 8)
    }

    /// Returns whether pixels are indices into the colour map of the server.
    pub fn has_colour_map(self) -> bool {
        !self.is_true_colour
    }

    /// Returns whether Tight sends pixels as three bytes of red, green and blue.
    fn is_tight_compact(self) -> bool {
        self.is_true_colour && self.bits == 32 && self.depth == 24 && self.max == [0xFF; 3]
    }

    /// Returns the bytes of a pixel in memory that ZRLE sends. `None`: all.
    fn compact_bytes(self) -> Option<std::ops::Range<usize>> {
        if !self.is_true_colour || self.bits != 32 || self.depth > 24 {
            return None;
        }
        let used = self.max.iter().zip(self.shift).map(|(max, shift)| u32::from(*max) << shift);
        let used = used.fold(0, |all, one| all | one);
        match (used & 0xFF00_0000 == 0, used & 0xFF == 0, self.is_big_endian) {
            (true, _, false) | (false, true, true) => Some(0..3),
            (true, _, true) | (false, true, false) => Some(1..4),
            (false, false, _) => None,
        }
    }
}

/// Writes pixels in a format.
#[derive(Clone, Debug)]
pub struct PixelWriter {
    format: PixelFormat,
    /// Each value of red, green and blue at its bits.
    tables: [[u32; 256]; 3],
    compact: Option<std::ops::Range<usize>>,
}

impl PixelWriter {
    /// Returns the writer of a format.
    pub fn new(format: PixelFormat) -> Self {
        let table = |colour: usize| {
            let (max, shift) = (u32::from(format.max[colour]), format.shift[colour]);
            std::array::from_fn(|value| ((value as u32 * max + 127) / 255) << shift)
        };
        Self { format, tables: [table(0), table(1), table(2)], compact: format.compact_bytes() }
    }

    /// Returns the format.
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    /// Returns the value in this format of a pixel of the server's format.
    pub fn value(&self, pixel: u32) -> u32 {
        let [blue, green, red, _] = pixel.to_le_bytes().map(usize::from);
        self.tables[0][red] | self.tables[1][green] | self.tables[2][blue]
    }

    /// Returns whether values are pixels of the server's format.
    pub fn is_native(&self) -> bool {
        self.format == PixelFormat::NATIVE
    }

    /// Appends a value as a pixel.
    pub fn put(&self, value: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes(value)[..self.format.bytes()]);
    }

    /// Appends a value as a pixel of ZRLE, which may be shorter.
    pub fn put_compact(&self, value: u32, out: &mut Vec<u8>) {
        match &self.compact {
            Some(range) => out.extend_from_slice(&self.bytes(value)[range.clone()]),
            None => self.put(value, out),
        }
    }

    /// Returns the bytes of a pixel of ZRLE.
    pub fn compact_size(&self) -> usize {
        self.compact.as_ref().map_or(self.format.bytes(), std::ops::Range::len)
    }

    /// Appends a value as a pixel of Tight, which may be shorter.
    pub fn put_tight(&self, value: u32, out: &mut Vec<u8>) {
        match self.format.is_tight_compact() {
            true => out.extend(self.format.shift.map(|shift| (value >> shift) as u8)),
            false => self.put(value, out),
        }
    }

    /// Returns the bytes of a pixel of Tight.
    pub fn tight_size(&self) -> usize {
        if self.format.is_tight_compact() { 3 } else { self.format.bytes() }
    }

    /// Returns the bytes of a value, of which the first [`PixelFormat::bytes`] are the pixel.
    fn bytes(&self, value: u32) -> [u8; 4] {
        match (self.format.bits, self.format.is_big_endian) {
            (16, true) => {
                let [high, low] = (value as u16).to_be_bytes();
                [high, low, 0, 0]
            }
            (32, true) => value.to_be_bytes(),
            _ => value.to_le_bytes(),
        }
    }
}
