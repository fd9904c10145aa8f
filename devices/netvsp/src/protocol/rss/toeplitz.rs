//! The Toeplitz hash.

/// Bytes of a key.
const KEY: usize = 40;

/// Most bytes that a key hashes: two IPv6 addresses and two ports.
const MAX_INPUT: usize = KEY - 4;

/// A Toeplitz key, prepared for hashing. The hash is the exclusive or of one 32-bit window of the
/// key for each set bit of the input; the table has this sum for each value of each half byte.
#[derive(Clone, PartialEq, Eq)]
pub struct ToeplitzKey {
    bytes: [u8; KEY],
    sums: [[u32; 16]; 2 * MAX_INPUT],
}

impl ToeplitzKey {
    /// Microsoft's key, which guests use unless they choose one.
    pub const MICROSOFT: [u8; KEY] = [
        0x6D, 0x5A, 0x56, 0xDA, 0x25, 0x5B, 0x0E, 0xC2, 0x41, 0x67, 0x25, 0x3D, 0x43, 0xA3, 0x8F,
        0xB0, 0xD0, 0xCA, 0x2B, 0xCB, 0xAE, 0x7B, 0x30, 0xB4, 0x77, 0xCB, 0x2D, 0xA3, 0x80, 0x30,
        0xF2, 0x0C, 0x6A, 0x42, 0xB7, 0x3B, 0xBE, 0xAC, 0x01, 0xFA,
    ];

    /// Prepares a key.
    pub fn new(bytes: [u8; KEY]) -> Self {
        let mut sums = [[0; 16]; 2 * MAX_INPUT];
        for (half, sums) in sums.iter_mut().enumerate() {
            for (value, sum) in sums.iter_mut().enumerate() {
                let bits = (0..4).filter(|bit| value & (8 >> bit) != 0);
                *sum = bits.fold(0, |sum, bit| sum ^ window(&bytes, 4 * half + bit));
            }
        }
        Self { bytes, sums }
    }

    /// Returns the key.
    pub fn bytes(&self) -> &[u8; KEY] {
        &self.bytes
    }

    /// Returns the hash of the first 36 bytes of `input`, which has fields in network byte order.
    #[inline]
    pub fn hash(&self, input: &[u8]) -> u32 {
        let (pairs, _) = self.sums.as_chunks::<2>();
        input.iter().zip(pairs).fold(0, |sum, (byte, [high, low])| {
            sum ^ high[usize::from(byte >> 4)] ^ low[usize::from(byte & 15)]
        })
    }
}

impl Default for ToeplitzKey {
    fn default() -> Self {
        Self::new(Self::MICROSOFT)
    }
}

impl std::fmt::Debug for ToeplitzKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("ToeplitzKey").field(&self.bytes).finish()
    }
}

/// Returns the 32 bits of the key from bit `start` on, most significant bit first.
fn window(key: &[u8; KEY], start: usize) -> u32 {
    let bits =
        key.iter().skip(start / 8).take(5).fold(0, |bits, byte| bits << 8 | u64::from(*byte));
    (bits >> (8 - start % 8)) as u32
}
