//! Variables.

use crate::bios::{self, BUFFER, DESCRIPTOR};
use crate::cpu::bytes_at;

const KEPT: u32 = 7;
const NAME: u64 = BUFFER;
const DATA: u64 = BUFFER + 0x1000;
const VENDOR: [u8; 16] = *b"SynthVM's stub!!";
const BOOTS: &[u8] = b"B\0o\0o\0t\0s\0\0\0";
const TEST: &[u8] = b"T\0e\0s\0t\0\0\0";
const SIGNED: &[u8] = b"S\0i\0g\0n\0e\0d\0\0\0";

/// Attributes of a variable that only signed writes may change.
const AUTHENTICATED: u32 = KEPT | 0x20;

const INVALID: u32 = 2;
const NOT_FOUND: u32 = 14;
const SECURITY_VIOLATION: u32 = 26;

/// Performs a request, and returns its status.
fn perform(
    command: u32,
    attributes: u32,
    name_bytes: u32,
    vendor: &[u8; 16],
    data_bytes: u32,
) -> u32 {
    bios::put(DESCRIPTOR, &command.to_le_bytes());
    bios::put(DESCRIPTOR + 4, &7_u64.to_le_bytes());
    bios::put(DESCRIPTOR + 12, &attributes.to_le_bytes());
    bios::put(DESCRIPTOR + 16, &NAME.to_le_bytes());
    bios::put(DESCRIPTOR + 24, &name_bytes.to_le_bytes());
    bios::put(DESCRIPTOR + 28, vendor);
    bios::put(DESCRIPTOR + 44, &DATA.to_le_bytes());
    bios::put(DESCRIPTOR + 52, &data_bytes.to_le_bytes());
    bios::write(0x24, DESCRIPTOR as u32);
    bios::word_at(DESCRIPTOR + 4)
}

/// Reads a variable into `buffer`. Returns its length, or the status.
pub(crate) fn get(name: &[u8], buffer: &mut [u8]) -> Result<usize, u32> {
    bios::put(NAME, name);
    let status = perform(0, 0, name.len() as u32, &VENDOR, buffer.len() as u32);
    if status != 0 {
        return Err(status);
    }
    let len = bios::word_at(DESCRIPTOR + 52) as usize;
    let len = len.min(buffer.len());
    buffer[..len].copy_from_slice(bytes_at(DATA, len));
    Ok(len)
}

/// Sets or deletes a variable. Returns the status.
pub(crate) fn set(name: &[u8], attributes: u32, data: &[u8]) -> u32 {
    bios::put(NAME, name);
    bios::put(DATA, data);
    perform(1, attributes, name.len() as u32, &VENDOR, data.len() as u32)
}

/// Sets, appends, reads with a small buffer, and deletes; and writes without a signature what needs
/// one.
pub(crate) fn check() -> Result<u64, u32> {
    let mut buffer = [0; 16];
    let expect = |check: u32, is_good| if is_good { Ok(()) } else { Err(check) };
    expect(1, get(TEST, &mut buffer) == Err(NOT_FOUND))?;
    expect(2, set(TEST, KEPT, b"one") == 0)?;
    expect(3, set(TEST, KEPT | 0x40, b"two") == 0)?;
    expect(4, get(TEST, &mut buffer) == Ok(6) && &buffer[..6] == b"onetwo")?;
    expect(5, get(TEST, &mut buffer[..2]) == Err(5) && bios::word_at(DESCRIPTOR + 52) == 6)?;
    expect(6, set(TEST, 3, b"x") == INVALID && set(TEST, AUTHENTICATED, b"x") == INVALID)?;
    expect(7, set(SIGNED, AUTHENTICATED, b"x") == SECURITY_VIOLATION)?;
    expect(8, set(TEST, KEPT, b"") == 0)?;
    expect(9, get(TEST, &mut buffer) == Err(NOT_FOUND))?;
    expect(10, perform(4, KEPT, 0, &VENDOR, 0) == 0)?;
    Ok(6)
}

/// Returns the number of variables.
pub(crate) fn check_names() -> Result<u64, u32> {
    let mut count = 0;
    let mut status = perform(2, 0, 0x800, &[0; 16], 0);
    while status == 0 {
        count += 1;
        if count > 1000 {
            return Err(1);
        }
        let vendor = *bytes_at(DESCRIPTOR + 28, 16).first_chunk().ok_or(2_u32)?;
        status = perform(3, 0, 0x800, &vendor, 0);
    }
    // SetupMode, SecureBoot, SecureBootEnable, CurrentPolicy and two more are always there.
    if status != NOT_FOUND || count < 6 { Err(3) } else { Ok(count) }
}

/// Adds one to the number of boots, and returns it.
pub(crate) fn count_boots() -> Result<u64, u32> {
    let count = boots() + 1;
    match set(BOOTS, KEPT, &count.to_le_bytes()) {
        0 => Ok(count),
        status => Err(status),
    }
}

/// Returns the number of boots with the variables that there are.
pub(crate) fn boots() -> u64 {
    let mut buffer = [0; 8];
    match get(BOOTS, &mut buffer) {
        Ok(8) => u64::from_le_bytes(buffer),
        _ => 0,
    }
}
