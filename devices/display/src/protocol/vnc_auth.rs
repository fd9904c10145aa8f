//! VNC authentication: a challenge, encrypted by DES with the password as key (RFC 6143, 7.2.2).

use des::Des;
use des::cipher::{Array, BlockCipherEncrypt, KeyInit};

/// Bytes of a challenge and of its response.
pub const CHALLENGE_BYTES: usize = 16;

/// Returns the response to a challenge. Of the password, the first eight bytes matter.
pub fn response(password: &[u8], challenge: &[u8; CHALLENGE_BYTES]) -> [u8; CHALLENGE_BYTES] {
    let mut key = [0; 8];
    for (bits, byte) in key.iter_mut().zip(password) {
        // The first implementation had the bits in the other order.
        *bits = byte.reverse_bits();
    }
    let cipher = Des::new(&Array(key));
    let mut response = *challenge;
    let (blocks, _) = response.as_chunks_mut::<8>();
    for block in blocks {
        let mut encrypted = Array(*block);
        cipher.encrypt_block(&mut encrypted);
        *block = encrypted.0;
    }
    response
}
