//! Encoded rectangles, and the zlib streams of viewers.

/// The zlib streams of a viewer that are in use: one for ZRLE, one for Tight.
const STREAMS: usize = 2;
pub(super) const ZRLE_STREAM: usize = 0;
pub(super) const TIGHT_STREAM: usize = 1;

/// The two bytes at the start of a zlib stream: deflate with a window of 32 KiB.
const ZLIB_HEADER: [u8; 2] = [0x78, 0x01];

/// An encoded rectangle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Encoded(pub(super) Vec<Part>);

#[derive(Clone, Debug)]
pub(super) enum Part {
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
pub(super) enum LengthFormat {
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
    pub(super) fn len(&self) -> usize {
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

pub(super) fn put_length(length: usize, format: LengthFormat, out: &mut Vec<u8>) {
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
