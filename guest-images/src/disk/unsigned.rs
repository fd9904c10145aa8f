//! Removes the signature of an EFI program.

use crate::Error;

/// Offset of the offset of the PE header.
const PE_OFFSET: usize = 0x3C;
/// Offset of the optional header behind the PE header's signature and the COFF header.
const OPTIONAL_HEADER: usize = 24;
/// The optional header's magic number for 64 bits.
const PE32_PLUS: u16 = 0x20B;
/// Offset of the directory of certificates in the optional header: file offset and size.
const CERTIFICATES: usize = 112 + 4 * 8;

/// Returns the program without the signatures at its end.
///
/// # Errors
/// It is no 64-bit EFI program, or it has no signature.
pub(super) fn unsigned(program: &[u8]) -> Result<Vec<u8>, Error> {
    remove(program).ok_or_else(|| Error::Unusable("a program without a signature".to_owned()))
}

fn remove(program: &[u8]) -> Option<Vec<u8>> {
    let word = |at: usize| {
        let bytes = program.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let header = word(PE_OFFSET)?.checked_add(OPTIONAL_HEADER)?;
    if word(header)? & 0xFFFF != usize::from(PE32_PLUS) {
        return None;
    }
    let directory = header.checked_add(CERTIFICATES)?;
    let start = word(directory).filter(|&start| start != 0)?;
    let mut rest = program.get(..start)?.to_vec();
    rest.get_mut(directory..directory.checked_add(8)?)?.fill(0);
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a program of 512 bytes, of which the last 100 are its signature.
    fn signed() -> Vec<u8> {
        let mut program = vec![0x55; 512];
        program[PE_OFFSET..][..4].copy_from_slice(&0x80_u32.to_le_bytes());
        program[0x80 + OPTIONAL_HEADER..][..2].copy_from_slice(&PE32_PLUS.to_le_bytes());
        let directory = 0x80 + OPTIONAL_HEADER + CERTIFICATES;
        program[directory..][..8].copy_from_slice(&[156, 1, 0, 0, 100, 0, 0, 0]);
        program
    }

    #[test]
    fn test_signed_program_loses_its_signature_and_nothing_else() {
        let program = signed();
        let mut expected = program[..412].to_vec();
        expected[0x80 + OPTIONAL_HEADER + CERTIFICATES..][..8].fill(0);
        assert_eq!(unsigned(&program).unwrap(), expected);
    }

    #[test]
    fn test_program_without_a_signature_or_header_is_refused() {
        let rest = unsigned(&signed()).unwrap();
        for program in [&rest[..], &rest[..100], &[]] {
            assert!(unsigned(program).is_err());
        }
    }
}
