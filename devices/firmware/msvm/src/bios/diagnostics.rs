//! The firmware's own log in guest memory, which it asks to print when a boot fails: {"ALOG", u16
//! version, 6 bytes, u32 offset of the messages, u32 0, u32 offset of their end, u32 bytes lost,
//! u32 bytes, ...; from version 6 on, at 80, u64 address of the log that replaces this one}.

use tracing::{info, warn};
use vmbus_log::LogRateLimiter;

use super::text;
use crate::fields::{le16, le32, le64};
use crate::memory::{self, Memory};

const LOG_SIGNATURE: u32 = u32::from_le_bytes(*b"ALOG");
const MESSAGE_SIGNATURE: u32 = u32::from_le_bytes(*b"ALM2");
const HEADER_BYTES: usize = 88;
const MESSAGE_HEADER: usize = 24;
/// First version with the address of a replacing log.
const VERSION_WITH_NEXT: u16 = 6;
/// Most logs of a chain: the firmware moves it twice.
const MAX_CHAIN: usize = 3;
/// Most bytes that are read, of the oldest messages.
const MAX_BYTES: usize = 256 << 10;
/// Most lines between two resets.
const MAX_LINES: usize = 256;
/// Debug level of an error.
const ERROR: u32 = 0x8000_0000;

/// The log's address, and the lines that it may still print.
pub(super) struct Diagnostics {
    address: Option<u32>,
    lines_left: usize,
    log: LogRateLimiter,
}

impl Default for Diagnostics {
    fn default() -> Diagnostics {
        Diagnostics { address: None, lines_left: MAX_LINES, log: LogRateLimiter::default() }
    }
}

/// A message of the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) is_error: bool,
    pub(super) text: String,
}

impl Diagnostics {
    pub(super) fn set_address(&mut self, address: u32) {
        self.address = Some(address);
    }

    /// Prints the messages.
    pub(super) fn log(&mut self, memory: &Memory) {
        if self.lines_left == 0 {
            return;
        }
        let Some(messages) = self.address.and_then(|address| read(memory, address.into())) else {
            self.log.log(|suppressed| {
                warn!(suppressed, "firmware: there is no valid log to print");
            });
            return;
        };
        for message in messages.iter().take(self.lines_left) {
            let text = &message.text;
            if message.is_error { warn!("firmware: {text}") } else { info!("firmware: {text}") }
        }
        self.lines_left = self.lines_left.saturating_sub(messages.len());
    }
}

/// Returns the messages of the log at `address`, oldest first. `None`: there is no log.
pub(super) fn read(memory: &Memory, address: u64) -> Option<Vec<Message>> {
    let (address, header) = newest_log(memory, address)?;
    let (start, end) = (le32(&header, 12)?, le32(&header, 20)?);
    let len = end.checked_sub(start)?;
    if len > le32(&header, 28)? {
        return None;
    }
    let len = (len as usize).min(MAX_BYTES);
    let bytes = memory::read(memory, address.checked_add(start.into())?, len).ok()?;
    Some(messages(&bytes))
}

/// Follows the chain of replaced logs. Returns the last one's address and header.
fn newest_log(memory: &Memory, address: u64) -> Option<(u64, [u8; HEADER_BYTES])> {
    let mut address = address;
    for _ in 0..MAX_CHAIN {
        let header = memory::read_array::<HEADER_BYTES>(memory, address).ok()?;
        if le32(&header, 0)? != LOG_SIGNATURE {
            return None;
        }
        let has_next = le16(&header, 4)? >= VERSION_WITH_NEXT;
        match le64(&header, 80).filter(|next| has_next && *next != 0) {
            Some(next) => address = next,
            None => return Some((address, header)),
        }
    }
    None
}

fn messages(bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut at = 0_usize;
    while messages.len() < MAX_LINES
        && let Some((message, len)) = bytes.get(at..).and_then(message)
    {
        messages.push(message);
        at = (at + len).next_multiple_of(8);
    }
    messages
}

/// Returns the first message and its length: {"ALM2", u8 2, u8 minor, u32 level, u64 time, u16
/// phase, u16 bytes, u16 offset of the text}.
fn message(bytes: &[u8]) -> Option<(Message, usize)> {
    if le32(bytes, 0)? != MESSAGE_SIGNATURE {
        return None;
    }
    let level = le32(bytes, 6)?;
    let (len, offset) = (usize::from(le16(bytes, 20)?), usize::from(le16(bytes, 22)?));
    if offset < MESSAGE_HEADER {
        return None;
    }
    let text = text::printable(bytes.get(offset..offset + len)?);
    Some((Message { is_error: level & ERROR != 0, text }, offset + len))
}
