//! Commands of TPM 2.0 as bytes, for the tests of the device and of guests. Source: TCG TPM 2.0
//! Library, part 3.

/// Asks for 16 random bytes.
pub(crate) const GET_16_RANDOM: &[u8] = &[0x80, 1, 0, 0, 0, 12, 0, 0, 0x01, 0x7B, 0, 16];
/// Reads PCR 16 of the bank of SHA-256.
pub(crate) const READ_PCR: &[u8] =
    &[0x80, 1, 0, 0, 0, 20, 0, 0, 0x01, 0x7E, 0, 0, 0, 1, 0, 0x0B, 3, 0, 0, 1];
/// Reads the clock, and the numbers of resets and restarts.
pub(crate) const READ_CLOCK: &[u8] = &[0x80, 1, 0, 0, 0, 10, 0, 0, 0x01, 0x81];

/// Returns TPM2_PCR_Extend of PCR 16 by a SHA-256 of all ones, with an empty password.
pub(crate) fn extend_pcr() -> Vec<u8> {
    let mut command = vec![0x80, 2, 0, 0, 0, 65, 0, 0, 0x01, 0x82, 0, 0, 0, 16];
    command.extend([0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0]);
    command.extend([0, 0, 0, 1, 0, 0x0B]);
    command.extend([0xFF; 32]);
    command
}
