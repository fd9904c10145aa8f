//! The event log: what the firmware did to boot (spec firmware-windows section A5.3).

use std::fmt::Write as _;

use crate::fields::{le16, le32, le64};
use crate::memory::{self, Memory};

/// GUID, events written, events lost, bytes.
const HEADER_BYTES: usize = 28;
/// Producer, correlation, two times, id, flags, lengths of header and data.
const EVENT_HEADER: usize = 64;
/// Most bytes of all events. The firmware's own channel has 16 KiB.
const MAX_BYTES: usize = 16 << 10;
/// Most lines of a log.
const MAX_LINES: usize = 64;
const BOOT_EVENT: u32 = 1;

/// A boot loader was started.
const LOADER_STARTED: u32 = 0x1_0005;
/// There is nothing to boot from.
const NO_DEVICE: u32 = 0x1_0006;

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLine {
    /// The text, without line end.
    pub text: String,
    /// Whether the event kept the firmware from booting.
    pub is_failure: bool,
    /// Whether the event is the end of the attempts to boot: there is nothing to boot from.
    pub is_last: bool,
}

/// The lines of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventLines(Vec<EventLine>);

impl EventLines {
    /// Reads the log at `address`. `None`: it is not in RAM, or not a log.
    #[must_use]
    pub fn read(memory: &Memory, address: u64) -> Option<EventLines> {
        let header = memory::read_array::<HEADER_BYTES>(memory, address).ok()?;
        let (lost, len) = (le32(&header, 20)?, le32(&header, 24)? as usize);
        if len > MAX_BYTES {
            return None;
        }
        let bytes = memory::read(memory, address + HEADER_BYTES as u64, len).ok()?;
        let mut lines = events(&bytes);
        if lost != 0 {
            lines.push(plain(format!("{lost} boot events were lost")));
        }
        Some(EventLines(lines))
    }

    /// Returns the lines.
    #[must_use]
    pub fn lines(&self) -> &[EventLine] {
        &self.0
    }
}

/// Returns a line for each event, up to the first that is invalid.
fn events(bytes: &[u8]) -> Vec<EventLine> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while let Some((id, data, later)) = event(rest)
        && lines.len() < MAX_LINES
    {
        lines.push(match id {
            BOOT_EVENT => {
                boot_line(data).unwrap_or_else(|| plain("boot event without status".to_owned()))
            }
            id => plain(format!("event {id} with {} bytes", data.len())),
        });
        rest = later;
    }
    lines
}

/// Returns the id and the data of the first event, and the bytes after it.
fn event(bytes: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let id = le32(bytes, 48)?;
    let (header, len) = (le32(bytes, 56)? as usize, le32(bytes, 60)? as usize);
    if header < EVENT_HEADER {
        return None;
    }
    let data = bytes.get(header..)?;
    let (data, later) = data.split_at_checked(len)?;
    Some((id, data, later))
}

/// Returns a line for {u32 status, u64 extended status, u16 boot variable, u32 path bytes, path}.
fn boot_line(data: &[u8]) -> Option<EventLine> {
    let status = le32(data, 0)?;
    let extended = le64(data, 4)?;
    let option = le16(data, 12)?;
    let mut line =
        status_text(status).map_or_else(|| format!("boot status {status:#x}"), str::to_owned);
    // "No device" concerns no option.
    if status != NO_DEVICE {
        // Writing to a String cannot fail.
        let _ = write!(line, ", Boot{option:04X}");
    }
    if extended != 0 {
        let _ = write!(line, ", EFI status {extended:#x}");
    }
    let is_failure = status != 0 && status != LOADER_STARTED;
    Some(EventLine { text: line, is_failure, is_last: status == NO_DEVICE })
}

fn plain(text: String) -> EventLine {
    EventLine { text, is_failure: false, is_last: false }
}

fn status_text(status: u32) -> Option<&'static str> {
    Some(match status {
        0 => "boot is pending",
        0x1_0000 => "boot device has no file system",
        0x1_0001 => "boot device has no boot loader",
        0x1_0002 => "boot loader is for another machine",
        0x1_0003 => "boot loader returned with an error",
        0x1_0004 => "boot loader loaded no system",
        LOADER_STARTED => "boot loader started",
        NO_DEVICE => "no boot device",
        0x1_0007 => "boot loader could not be loaded",
        0x2_0000 => "Secure Boot refused the boot loader",
        0x2_0001 => "Secure Boot policy refused the boot loader",
        0x2_0002 => "Secure Boot: the boot loader's hash is revoked (dbx)",
        0x2_0003 => "Secure Boot: the boot loader's certificate is revoked (dbx)",
        0x2_0004 => "Secure Boot: the boot loader is no valid image",
        0x2_0005 => "Secure Boot: the boot loader is unsigned, and its hash is not in db",
        0x2_0006 => "Secure Boot: the signed boot loader's hash does not match",
        0x2_0007 => "Secure Boot: neither certificate nor hash of the boot loader is in db",
        0x3_0000 => "network boot: no link",
        0x3_0001 => "network boot: DHCP failed",
        0x3_0002..=0x3_FFFF => "network boot failed",
        _ => return None,
    })
}
