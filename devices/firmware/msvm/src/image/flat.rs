//! Wraps a flat program into an image, for firmware of our own that speaks the same contract.

use super::executable::MACHINE_X64;
use super::{FILE_HEADER, SECTION_HEADER, SECTION_PE32, SECURITY_CORE, VOLUME_SIGNATURE};

const IMAGE_BYTES: usize = 6 << 20;
const SEC_VOLUME: usize = 0x5E_0000;
const SEC_VOLUME_BYTES: usize = 0x2_0000;
/// Of the volume: fixed fields and a block map of one entry and its end.
const VOLUME_HEADER: usize = 72;
/// Offset of the PE header's program. The program's guest address is then a multiple of 16.
const PE_HEADERS: usize = 0x40;
/// First byte of the program in the image.
const PROGRAM: usize = SEC_VOLUME + 0x1000;

/// Returns an image of 6 MiB whose SEC core is `program`: position-independent machine code whose
/// first byte is its first instruction, and which needs no relocation. `None` if it does not fit.
///
/// Only what a loader reads is there: the image has no other volume, and no checksums.
#[must_use]
pub fn wrap_flat(program: &[u8]) -> Option<Vec<u8>> {
    if program.len() > SEC_VOLUME_BYTES - 0x1000 {
        return None;
    }
    let mut image = vec![0xFF; IMAGE_BYTES];
    let volume = &mut image[SEC_VOLUME..][..SEC_VOLUME_BYTES];
    volume[..VOLUME_HEADER].fill(0);
    put(volume, 32, &(SEC_VOLUME_BYTES as u64).to_le_bytes());
    put(volume, 40, &VOLUME_SIGNATURE.to_le_bytes());
    put(volume, 48, &(VOLUME_HEADER as u16).to_le_bytes());
    put(volume, 55, &[2]);
    put(volume, 56, &((SEC_VOLUME_BYTES / 0x1000) as u32).to_le_bytes());
    put(volume, 60, &0x1000_u32.to_le_bytes());

    let executable = VOLUME_HEADER + FILE_HEADER + SECTION_HEADER;
    let entry = PROGRAM - SEC_VOLUME - executable;
    let section = SECTION_HEADER + entry + program.len();
    let file = &mut volume[VOLUME_HEADER..];
    file[..FILE_HEADER + SECTION_HEADER + entry].fill(0);
    put(file, 18, &[SECURITY_CORE, 0]);
    put(file, 20, &((FILE_HEADER + section) as u32).to_le_bytes()[..3]);
    put(file, FILE_HEADER, &(section as u32).to_le_bytes()[..3]);
    put(file, FILE_HEADER + 3, &[SECTION_PE32]);
    let pe = &mut file[FILE_HEADER + SECTION_HEADER..];
    put(pe, 0, b"MZ");
    put(pe, 0x3C, &(PE_HEADERS as u32).to_le_bytes());
    put(pe, PE_HEADERS, b"PE\0\0");
    put(pe, PE_HEADERS + 4, &MACHINE_X64.to_le_bytes());
    put(pe, PE_HEADERS + 40, &(entry as u32).to_le_bytes());
    put(pe, entry, program);
    Some(image)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}
