//! Discs for DVD drives: an ISO 9660 file system with one file.

use std::io;
use std::path::Path;

const SECTOR: usize = 2048;
const PATH_TABLE_L: u32 = 18;
const PATH_TABLE_M: u32 = 19;
const ROOT: u32 = 20;
const DATA: u32 = 21;

/// The name of the file on a mounted disc.
pub const FILE: &str = "data.bin";

/// Writes a disc whose one file, [`FILE`], has `content` (ECMA-119 6 to 9, without extensions).
///
/// # Errors
/// The image cannot be written.
pub fn write(image: &Path, content: &[u8]) -> io::Result<()> {
    let size = u32::try_from(content.len()).map_err(io::Error::other)?;
    let sectors = DATA + size.div_ceil(SECTOR as u32);
    let mut disc = vec![0; sectors as usize * SECTOR];
    let mut put = |sector: u32, at: usize, bytes: &[u8]| {
        let at = sector as usize * SECTOR + at;
        disc[at..at + bytes.len()].copy_from_slice(bytes);
    };
    let root = record(&[0], ROOT, SECTOR as u32, true);

    // The primary volume descriptor, and the terminator of descriptors.
    put(16, 0, b"\x01CD001\x01");
    put(16, 8, &[b' '; 64]);
    put(16, 40, b"SYNTHVM");
    put(16, 80, &both32(sectors));
    put(16, 120, &both16(1));
    put(16, 124, &both16(1));
    put(16, 128, &both16(SECTOR as u16));
    put(16, 132, &both32(10));
    put(16, 140, &PATH_TABLE_L.to_le_bytes());
    put(16, 148, &PATH_TABLE_M.to_be_bytes());
    put(16, 156, &root);
    put(16, 190, &[b' '; 813 - 190]);
    put(16, 881, &[1]);
    put(17, 0, b"\xFFCD001\x01");

    // The path tables have one directory, which is its own parent.
    put(PATH_TABLE_L, 0, &[1, 0, ROOT as u8, 0, 0, 0, 1, 0]);
    put(PATH_TABLE_M, 0, &[1, 0, 0, 0, 0, ROOT as u8, 0, 1]);

    let parent = record(&[1], ROOT, SECTOR as u32, true);
    let file = record(b"DATA.BIN;1", DATA, size, false);
    put(ROOT, 0, &root);
    put(ROOT, root.len(), &parent);
    put(ROOT, root.len() + parent.len(), &file);
    put(DATA, 0, content);
    std::fs::write(image, disc)
}

/// Returns a directory record (9.1). Its date is unspecified.
fn record(name: &[u8], sector: u32, size: u32, is_directory: bool) -> Vec<u8> {
    let length = (33 + name.len()).next_multiple_of(2);
    let mut record = vec![length as u8, 0];
    record.extend(both32(sector));
    record.extend(both32(size));
    record.extend([0; 7]);
    record.extend([if is_directory { 2 } else { 0 }, 0, 0]);
    record.extend(both16(1));
    record.push(name.len() as u8);
    record.extend(name);
    record.resize(length, 0);
    record
}

fn both16(number: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (number.to_le_bytes(), number.to_be_bytes());
    [a, b, c, d]
}

fn both32(number: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (number.to_le_bytes(), number.to_be_bytes());
    [a, b, c, d, e, f, g, h]
}
