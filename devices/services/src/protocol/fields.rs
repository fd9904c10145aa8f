//! Fields of message bodies, by their place.

/// Returns `length` bytes of `body` from `at` on; none if it is shorter.
pub(super) fn field(body: &mut [u8], (at, length): (usize, usize)) -> &mut [u8] {
    body.get_mut(at..at + length).unwrap_or_default()
}

/// Writes `bytes` into `body`, from `at` on.
pub(super) fn put(body: &mut [u8], at: usize, bytes: &[u8]) {
    field(body, (at, bytes.len())).copy_from_slice(bytes);
}
