//! Reads of bytes that lie in no file.

use synthvm_block::IoBuffer;

/// Fills `buffer` with zeroes.
pub(super) fn fill_with_zeroes(buffer: &IoBuffer) {
    static ZEROES: [u8; 4096] = [0; 4096];
    for slice in buffer.slices() {
        let mut at = 0;
        while at < slice.len() {
            let len = (slice.len() - at).min(ZEROES.len());
            if let Ok(piece) = slice.subslice(at, len) {
                piece.copy_from(&ZEROES[..len]);
            }
            at += len;
        }
    }
}

/// Copies `bytes` to `buffer`, which has the same length.
pub(super) fn fill_with(buffer: &IoBuffer, mut bytes: &[u8]) {
    for slice in buffer.slices() {
        let (now, later) = bytes.split_at(slice.len().min(bytes.len()));
        slice.copy_from(now);
        bytes = later;
    }
}
