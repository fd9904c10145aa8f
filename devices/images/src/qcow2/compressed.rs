//! Decompression of clusters: raw deflate, or a zstd frame.

use std::io::Read;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use ruzstd::decoding::StreamingDecoder;

/// Largest window of a zstd frame: every decoder must support as much (RFC 8878 section 3.1.1.1.2),
/// and it is more than a cluster.
const MAX_WINDOW: u64 = 8 << 20;

/// The compression method of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Deflate,
    Zstd,
}

impl Compression {
    /// Decompresses `packed`, which may have other bytes behind the data, to exactly `length`
    /// bytes. `None`: the data is not valid.
    pub(super) fn unpack(self, packed: &[u8], length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        match self {
            Self::Deflate => {
                let mut state = Box::new(DecompressorOxide::new());
                let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
                let (status, _, written) = decompress(&mut state, packed, &mut bytes, 0, flags);
                let is_good = matches!(status, TINFLStatus::Done | TINFLStatus::HasMoreOutput);
                (is_good && written == length).then_some(bytes)
            }
            Self::Zstd => {
                zstd_window(packed).filter(|&window| window <= MAX_WINDOW)?;
                let mut decoder = StreamingDecoder::new(packed).ok()?;
                decoder.read_exact(&mut bytes).ok()?;
                Some(bytes)
            }
        }
    }
}

/// Returns the bytes of memory that a frame needs for its window (RFC 8878 section 3.1.1.1).
fn zstd_window(frame: &[u8]) -> Option<u64> {
    let (magic, rest) = frame.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*magic) != 0xFD2F_B528 {
        return None;
    }
    let (&descriptor, rest) = rest.split_first()?;
    let is_single = descriptor & 0x20 != 0;
    if !is_single {
        let window = u64::from(*rest.first()?);
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * (window & 7));
    }
    // No window descriptor: the content's size, behind the dictionary's id.
    let id_length = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let mut size = [0; 8];
    size[..size_length].copy_from_slice(rest.get(id_length..id_length + size_length)?);
    let size = u64::from_le_bytes(size);
    Some(if size_length == 2 { size + 256 } else { size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_deflate_is_unpacked_whatever_follows_and_only_to_its_length() {
        let plain: Vec<u8> = (0..65536_u32).map(|at| (at / 100) as u8).collect();
        let mut packed = miniz_oxide::deflate::compress_to_vec(&plain, 6);
        packed.extend([0xAA; 100]);
        assert!(Compression::Deflate.unpack(&packed, plain.len()).as_ref() == Some(&plain));
        // The data may decompress to more than a cluster; the rest is ignored.
        assert!(Compression::Deflate.unpack(&packed, 4096).as_deref() == Some(&plain[..4096]));
        assert_eq!(
            Compression::Deflate.unpack(&packed, plain.len() + 1),
            None,
            "less than a cluster"
        );
        assert_eq!(Compression::Deflate.unpack(&packed[..20], plain.len()), None, "cut off");
        assert_eq!(Compression::Deflate.unpack(&[0xFF; 64], 512), None, "garbage");
    }

    #[test]
    fn test_zstd_window_is_read_and_a_large_one_refused() {
        let frame = |rest: &[u8]| [&[0x28, 0xB5, 0x2F, 0xFD][..], rest].concat();
        assert_eq!(zstd_window(&frame(&[0, 11 << 3])), Some(2 << 20));
        assert_eq!(zstd_window(&frame(&[0, 1])), Some(1024 + 128));
        assert_eq!(zstd_window(&frame(&[0x20, 200])), Some(200));
        assert_eq!(zstd_window(&frame(&[0x60, 0, 1])), Some(512));
        assert_eq!(zstd_window(&frame(&[0xE0, 0, 0, 0, 0, 0, 0, 0, 1])), Some(1 << 56));
        assert_eq!(zstd_window(b"none"), None);
        let large = frame(&[0, 17 << 3, 1, 0, 0]);
        assert_eq!(Compression::Zstd.unpack(&large, 512), None);
    }

    #[test]
    fn test_zstd_frame_of_one_repeated_byte_is_unpacked() {
        // A block of run-length type, the last one: 512 times 0x5A (RFC 8878 section 3.1.1.2).
        let header = (512_u32 << 3 | 1 << 1 | 1).to_le_bytes();
        let frame =
            [&[0x28, 0xB5, 0x2F, 0xFD, 0, 0][..], &header[..3], &[0x5A, 0xEE, 0xEE]].concat();
        assert_eq!(Compression::Zstd.unpack(&frame, 512), Some(vec![0x5A; 512]));
        assert_eq!(Compression::Zstd.unpack(&frame, 513), None);
    }
}
