//! Hostile changes of image files: numbers in structures replaced by others, checksums corrected
//! afterwards, logs to be replayed, files truncated.

use synthvm_images::Format;

use crate::image_bases::{Base, MIB};
use crate::image_checksums::{seal_vhd, seal_vhdx};
use crate::input::Input;
use crate::memory_file::MemoryFile;

const KIB: u64 = 1 << 10;
/// Most changes of one input.
const MAX_CHANGES: u8 = 12;
/// Longest file. It bounds the memory for structures.
const MAX_LENGTH: u64 = 32 * MIB;
/// Structures of a VHDX with a checksum at bytes 4 to 8.
const SEALED: [(u64, usize); 4] =
    [(64 * KIB, 4096), (128 * KIB, 4096), (192 * KIB, 65536), (256 * KIB, 65536)];
const LOG: u64 = MIB;
const LOG_ID: [u8; 16] = [7; 16];

/// Changes the image. Layout: the number of changes, flags (1: a log, for a VHDX; 2: checksums stay
/// wrong), the changes, the log. Returns whether the file was changed.
pub(crate) fn change(base: &Base, file: &MemoryFile, input: &mut Input<'_>) -> bool {
    let (count, flags) = (input.u8() % (MAX_CHANGES + 1), input.u8());
    for _ in 0..count {
        let (offset, bytes) = match input.u8() {
            255 => {
                file.resize(u64::from(input.u32()) % MAX_LENGTH);
                continue;
            }
            254 => (u64::from(input.u32()) % base.length, number(base, input)),
            class => {
                let (offset, length) = base.places[usize::from(class) % base.places.len()];
                (offset + u64::from(input.u16()) % length, number(base, input))
            }
        };
        if offset + 8 <= MAX_LENGTH {
            file.write(offset, &bytes);
        }
    }
    let has_log = flags & 1 != 0 && base.format == Format::Vhdx;
    if has_log {
        log(base, file, input);
    }
    if count != 0 && flags & 2 == 0 {
        seal(base, file);
    }
    count != 0 || has_log
}

/// Returns 1, 2, 4 or 8 bytes: arbitrary ones, or values at which code often fails.
fn number(base: &Base, input: &mut Input<'_>) -> Vec<u8> {
    let (kind, shift) = (input.u8(), input.u8());
    let value = match kind >> 4 {
        0..6 => input.u64(),
        6 => u64::from(input.u8()),
        7 => 1 << (shift & 63),
        8 => (1_u64 << (shift & 63)) - 1,
        9 => base.length.wrapping_add(u64::from(shift)),
        // Block entries with location and state; compressed clusters.
        10 => u64::from(input.u8()) << 20 | u64::from(shift & 7),
        11 => u64::from(input.u16()) << 9 | u64::from(shift) << 56,
        12 => u64::from(input.u16()) << 16 | u64::from(shift) << 56,
        13 => u64::MAX - u64::from(shift),
        14 => u64::from(input.u16()) << (shift & 63),
        _ => 0,
    };
    let length = [1, 2, 4, 8][usize::from(kind & 3)];
    let is_big = (base.format != Format::Vhdx) != (kind & 4 != 0);
    if is_big {
        value.to_be_bytes()[8 - length..].to_vec()
    } else {
        value.to_le_bytes()[..length].to_vec()
    }
}

/// Writes entries of a log, and a header that names it.
fn log(base: &Base, file: &MemoryFile, input: &mut Input<'_>) {
    let mut at = 0;
    let mut sequence = 1 + u64::from(input.u8());
    for _ in 0..1 + input.u8() % 3 {
        let (count, flags) = (1 + input.u8() % 4, input.u8());
        let mut changes = Vec::new();
        for _ in 0..count {
            let class = input.u8();
            let place = base.places[usize::from(class) % base.places.len()].0;
            let mut offset = place / 4096 * 4096;
            if class & 0x80 != 0 {
                offset = u64::from(input.u16()) << 12;
            }
            if class & 0x40 != 0 {
                changes.push(Change::Zero(offset, u64::from(input.u8()) << 12));
            } else {
                let mut page = file.read(offset, 4096);
                let within = usize::from(input.u16()) % 4088;
                let bytes = number(base, input);
                page[within..within + bytes.len()].copy_from_slice(&bytes);
                // A region table and a header have checksums of their own. The log can give a
                // correct one only to a structure within one page.
                if flags & 2 == 0 && matches!(offset >> 12, 16 | 32) {
                    seal_vhdx(&mut page);
                }
                changes.push(Change::Data(offset, page));
            }
        }
        let tail = if flags & 4 == 0 { 0 } else { u32::from(input.u16()) };
        let (flushed, last) =
            if flags & 8 == 0 { (base.length, base.length) } else { (input.u64(), input.u64()) };
        let mut entry = entry(sequence, tail, (flushed, last), &changes);
        if flags & 16 != 0 {
            let place = usize::from(input.u16()) % 64;
            let bytes = number(base, input);
            entry[place..place + bytes.len()].copy_from_slice(&bytes);
            seal_vhdx(&mut entry);
        }
        let length = entry.len() as u64;
        if at + length > MIB {
            break;
        }
        file.write(LOG + at, &entry);
        at += length;
        sequence += 1 + u64::from(flags & 1);
    }
    for offset in [64 * KIB, 128 * KIB] {
        let mut header = file.read(offset, 4096);
        header[48..64].copy_from_slice(&LOG_ID);
        seal_vhdx(&mut header);
        file.write(offset, &header);
    }
}

enum Change {
    Data(u64, Vec<u8>),
    Zero(u64, u64),
}

fn entry(sequence: u64, tail: u32, (flushed, last): (u64, u64), changes: &[Change]) -> Vec<u8> {
    let (mut descriptors, mut sectors) = (Vec::new(), Vec::new());
    for change in changes {
        let head = match change {
            Change::Zero(offset, length) => {
                [b"zero".as_slice(), &[0; 4], &length.to_le_bytes(), &offset.to_le_bytes()].concat()
            }
            Change::Data(offset, page) => {
                sectors.extend(b"data");
                sectors.extend(((sequence >> 32) as u32).to_le_bytes());
                sectors.extend(&page[8..4092]);
                sectors.extend((sequence as u32).to_le_bytes());
                [b"desc".as_slice(), &page[4092..], &page[..8], &offset.to_le_bytes()].concat()
            }
        };
        descriptors.extend(head);
        descriptors.extend(sequence.to_le_bytes());
    }
    let mut bytes = vec![0; 64];
    bytes[..4].copy_from_slice(b"loge");
    bytes[12..16].copy_from_slice(&tail.to_le_bytes());
    bytes[16..24].copy_from_slice(&sequence.to_le_bytes());
    bytes[24..28].copy_from_slice(&(changes.len() as u32).to_le_bytes());
    bytes[32..48].copy_from_slice(&LOG_ID);
    bytes[48..56].copy_from_slice(&flushed.to_le_bytes());
    bytes[56..64].copy_from_slice(&last.to_le_bytes());
    bytes.extend(descriptors);
    bytes.resize(bytes.len().next_multiple_of(4096), 0);
    bytes.extend(sectors);
    let length = bytes.len() as u32;
    bytes[8..12].copy_from_slice(&length.to_le_bytes());
    seal_vhdx(&mut bytes);
    bytes
}

/// Corrects all checksums.
fn seal(base: &Base, file: &MemoryFile) {
    let length = file.len();
    match base.format {
        Format::Vhdx => {
            for (offset, size) in SEALED {
                if offset + size as u64 <= length {
                    let mut bytes = file.read(offset, size);
                    seal_vhdx(&mut bytes);
                    file.write(offset, &bytes);
                }
            }
        }
        Format::Vhd => {
            let end = length.saturating_sub(512);
            for (offset, size, at) in [(0, 512, 64), (512, 1024, 36), (end, 512, 64)] {
                let of_dynamic = offset != end;
                if offset + size as u64 <= length && !(of_dynamic && !base.read_only) {
                    let mut bytes = file.read(offset, size);
                    seal_vhd(&mut bytes, at);
                    file.write(offset, &bytes);
                }
            }
        }
        Format::Raw | Format::Qcow2 => {}
    }
}
