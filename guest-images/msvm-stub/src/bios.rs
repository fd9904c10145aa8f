//! The BIOS device's ports.

use crate::cpu::{self, bytes_at};

const COMMAND: u16 = 0x28;
const DATA: u16 = 0x2C;
/// Scratch pages for descriptors and buffers.
pub(crate) const DESCRIPTOR: u64 = 0x2_0000;
pub(crate) const BUFFER: u64 = 0x2_1000;

const EXPIRED: u32 = 1 << 8;

pub(crate) fn write(command: u32, value: u32) {
    cpu::out32(COMMAND, command);
    cpu::out32(DATA, value);
}

pub(crate) fn read(command: u32) -> u32 {
    cpu::out32(COMMAND, command);
    cpu::in32(DATA)
}

/// Writes `bytes` to memory at `address`.
pub(crate) fn put(address: u64, bytes: &[u8]) {
    for (offset, byte) in (0..).zip(bytes) {
        // SAFETY: scratch pages, which this program uses for nothing else.
        unsafe { ((address + offset) as *mut u8).write_volatile(*byte) };
    }
}

/// Returns a word at `address`, which a device may have changed.
pub(crate) fn word_at(address: u64) -> u32 {
    // SAFETY: as for `put`.
    unsafe { (address as *const u32).read_unaligned() }
}

/// Starts and stops the watchdog.
pub(crate) fn check_watchdog() -> Result<u64, u32> {
    let resolution = read(0x28);
    if resolution == 0 || resolution == u32::MAX {
        return Err(1);
    }
    write(0x29, 120);
    if read(0x29) != 120 {
        return Err(2);
    }
    let expired = read(0x27) & EXPIRED;
    write(0x27, 0x13);
    if read(0x27) & !EXPIRED != 0x13 {
        return Err(3);
    }
    write(0x27, 0);
    if read(0x27) != expired { Err(4) } else { Ok(resolution.into()) }
}

/// Starts the watchdog with `count`.
pub(crate) fn start_watchdog(count: u32) {
    write(0x29, count);
    write(0x27, 0x13);
}

pub(crate) fn last_boot_expired() -> bool {
    read(0x27) & EXPIRED != 0
}

pub(crate) fn check_nfit() -> Result<u64, u32> {
    if read(0x37) != 0 {
        return Err(1);
    }
    if read(0x77) != u32::MAX { Err(2) } else { Ok(0) }
}

/// Asks for random bytes twice.
pub(crate) fn check_random() -> Result<u64, u32> {
    let mut last = 0;
    for check in 1..3 {
        put(DESCRIPTOR, &5_u32.to_le_bytes());
        put(DESCRIPTOR + 4, &7_u64.to_le_bytes());
        put(DESCRIPTOR + 12, &BUFFER.to_le_bytes());
        put(DESCRIPTOR + 20, &8_u32.to_le_bytes());
        put(BUFFER, &[0; 8]);
        write(0x26, DESCRIPTOR as u32);
        let value = bytes_at(BUFFER, 8).iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
        if word_at(DESCRIPTOR + 4) != 0 || value == last {
            return Err(check);
        }
        last = value;
    }
    Ok(8)
}

/// Logs that there is no boot device.
pub(crate) fn flush_no_device() -> Result<u64, u32> {
    put(DESCRIPTOR, &[0; 28 + 64 + 18]);
    put(DESCRIPTOR + 24, &(64_u32 + 18).to_le_bytes());
    let event = DESCRIPTOR + 28;
    put(event + 48, &1_u32.to_le_bytes());
    put(event + 56, &64_u32.to_le_bytes());
    put(event + 60, &18_u32.to_le_bytes());
    put(event + 64, &0x1_0006_u32.to_le_bytes());
    write(0x30, DESCRIPTOR as u32);
    Ok(1)
}
