//! The log: changes of structures that may be missing in the structures themselves.
//!
//! The active sequence is in force: consecutive entries, the last of which states their beginning
//! and has the highest number.

use std::collections::HashMap;

use vmbus_protocol::Guid;
use zerocopy::FromBytes;

use super::layout::{Header, LogDescriptor, LogHeader, SECTOR, is_sealed};
use crate::error::Flaw;
use crate::file::ImageFile;

/// Largest log that is read. Other programs write logs of 1 MiB.
const MAX_LOG: u32 = 64 << 20;
/// Times that each byte of the log may be checksummed. A log that needs more is refused as hostile.
const PATIENCE: usize = 8;
/// Longest file that a log may need.
const MAX_FILE: u64 = 1 << 47;

/// One change.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) offset: u64,
    pub(super) content: Content,
}

/// The new content of a range.
#[derive(Debug)]
pub(super) enum Content {
    /// These bytes.
    Sector(Box<[u8; SECTOR]>),
    /// So many zero bytes.
    Zero(u64),
}

/// The changes of a log, in order.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) writes: Vec<Write>,
    /// The least length of the file.
    pub(super) file_length: u64,
    /// Entries.
    pub(super) entries: usize,
}

/// A sound entry.
struct Entry {
    header: LogHeader,
    bytes: Vec<u8>,
}

/// The whole log in memory.
struct Log {
    bytes: Vec<u8>,
    id: Guid,
    /// Bytes that may still be checksummed.
    patience: usize,
    /// Offsets and lengths of sound entries.
    seen: HashMap<usize, Option<(u64, usize, usize)>>,
}

/// Reads the changes in the log of a file; none if it is empty.
pub(super) fn read(file: &ImageFile, header: &Header) -> Result<Replay, Flaw> {
    if header.log == super::layout::NO_GUID {
        return Ok(Replay::default());
    }
    let length = header.log_length.get();
    if length > MAX_LOG {
        let advice = "replay it with the program that made the image";
        return Err(Flaw::too_large("log", length.into(), MAX_LOG.into(), advice));
    }
    let mut bytes = vec![0; length as usize];
    file.read(&mut bytes, header.log_offset.get())?;
    let patience = bytes.len() * PATIENCE;
    let mut log = Log { bytes, id: header.log, patience, seen: HashMap::new() };
    let Some(sequence) = log.active_sequence()? else {
        if log.seen.values().any(Option::is_some) {
            return Err(Flaw::damaged("its log has entries, but no complete sequence of them"));
        }
        // The header names a log, but the log has no entries: its author stopped before the first
        // change.
        return Ok(Replay::default());
    };
    log.collect(&sequence, file.len()?)
}

impl Log {
    /// Returns the positions of the entries of the active sequence.
    fn active_sequence(&mut self) -> Result<Option<Vec<usize>>, Flaw> {
        let mut best: Option<(u64, Vec<usize>)> = None;
        let mut at = 0;
        while at < self.bytes.len() {
            let run = self.run(at)?;
            let Some(&(head, _)) = run.last() else {
                at += SECTOR;
                continue;
            };
            let (number, tail, length) = self.entry(head)?.unwrap_or_default();
            if let Some(begin) = run.iter().position(|&(position, _)| position == tail)
                && best.as_ref().is_none_or(|(best, _)| number > *best)
            {
                best = Some((number, run[begin..].iter().map(|&(position, _)| position).collect()));
            }
            let next = head + length;
            at = if next > at { next } else { self.bytes.len() };
        }
        Ok(best.map(|(_, sequence)| sequence))
    }

    /// Returns the sound entries from `at` on with consecutive numbers: position and number.
    fn run(&mut self, mut at: usize) -> Result<Vec<(usize, u64)>, Flaw> {
        let mut run: Vec<(usize, u64)> = Vec::new();
        let mut covered = 0;
        while let Some((number, _, length)) = self.entry(at)? {
            let follows = run.last().is_none_or(|&(_, last)| last.checked_add(1) == Some(number));
            covered += length;
            if !follows || covered > self.bytes.len() {
                break;
            }
            run.push((at, number));
            at = (at + length) % self.bytes.len();
        }
        Ok(run)
    }

    /// Returns number, tail and length of the entry at `at`, if there is a sound one.
    fn entry(&mut self, at: usize) -> Result<Option<(u64, usize, usize)>, Flaw> {
        if let Some(known) = self.seen.get(&at) {
            return Ok(*known);
        }
        let found = self.load(at)?.map(|entry| {
            let header = entry.header;
            (header.sequence.get(), header.tail.get() as usize, header.length.get() as usize)
        });
        self.seen.insert(at, found);
        Ok(found)
    }

    fn load(&mut self, at: usize) -> Result<Option<Entry>, Flaw> {
        let Ok((header, _)) = LogHeader::read_from_prefix(&self.bytes[at..]) else {
            return Ok(None);
        };
        let length = header.length.get() as usize;
        let plausible = &header.signature == b"loge"
            && header.log == self.id
            && header.sequence.get() != 0
            && length >= SECTOR
            && length.is_multiple_of(SECTOR)
            && length <= self.bytes.len()
            && (header.tail.get() as usize).is_multiple_of(SECTOR);
        if !plausible {
            return Ok(None);
        }
        self.patience = self
            .patience
            .checked_sub(length)
            .ok_or_else(|| Flaw::damaged("its log consists of entries that overlap each other"))?;
        let mut bytes = Vec::with_capacity(length);
        let first = length.min(self.bytes.len() - at);
        bytes.extend_from_slice(&self.bytes[at..at + first]);
        bytes.extend_from_slice(&self.bytes[..length - first]);
        let entry = Entry { header, bytes };
        Ok((is_sealed(&entry.bytes) && entry.writes().is_some()).then_some(entry))
    }

    fn collect(&mut self, sequence: &[usize], file: u64) -> Result<Replay, Flaw> {
        let mut replay = Replay { entries: sequence.len(), ..Replay::default() };
        self.patience = usize::MAX;
        for &at in sequence {
            let Some(entry) = self.load(at)? else { continue };
            let flushed = entry.header.flushed_file_offset.get();
            if flushed > file {
                return Err(Flaw::damaged(format!(
                    "the file has {file} bytes, but had {flushed} when it was used last"
                )));
            }
            replay.file_length = replay.file_length.max(entry.header.last_file_offset.get());
            replay.writes.extend(entry.writes().unwrap_or_default());
        }
        let end = file.max(replay.file_length);
        if end > MAX_FILE {
            return Err(Flaw::damaged("its log asks for a file of impossible length"));
        }
        for write in &replay.writes {
            let length = match write.content {
                Content::Sector(_) => SECTOR as u64,
                Content::Zero(length) => length,
            };
            // The headers, and all bytes before them, are never logged.
            if write.offset < super::layout::REGION_TABLES[0]
                || write.offset.checked_add(length).is_none_or(|last| last > end)
            {
                return Err(Flaw::damaged(format!(
                    "its log changes {length} bytes at {}, which no log may change",
                    write.offset
                )));
            }
        }
        Ok(replay)
    }
}

impl Entry {
    /// Returns the changes of the entry, if its descriptors and sectors are sound.
    fn writes(&self) -> Option<Vec<Write>> {
        let count = self.header.descriptors.get() as usize;
        let begin = size_of::<LogHeader>();
        let end = count.checked_mul(size_of::<LogDescriptor>())?.checked_add(begin)?;
        let descriptors = self.bytes.get(begin..end)?;
        let mut sectors = self.bytes.get(end.next_multiple_of(SECTOR)..)?.chunks_exact(SECTOR);
        let mut writes = Vec::with_capacity(count);
        for bytes in descriptors.chunks_exact(size_of::<LogDescriptor>()) {
            let descriptor = LogDescriptor::read_from_bytes(bytes).ok()?;
            let offset = descriptor.offset.get();
            if descriptor.sequence != self.header.sequence || offset % SECTOR as u64 != 0 {
                return None;
            }
            let content = match &descriptor.signature {
                b"zero" if descriptor.leading.get() % SECTOR as u64 == 0 => {
                    Content::Zero(descriptor.leading.get())
                }
                b"desc" => Content::Sector(self.sector(sectors.next()?, &descriptor)?),
                _ => return None,
            };
            writes.push(Write { offset, content });
        }
        Some(writes)
    }

    /// Returns a data sector. The log replaces its first and last bytes with marks and stores them
    /// in the descriptor.
    fn sector(&self, raw: &[u8], descriptor: &LogDescriptor) -> Option<Box<[u8; SECTOR]>> {
        let number = self.header.sequence.get();
        let marks = (&raw[..4], &raw[4..8], &raw[SECTOR - 4..]);
        let high = ((number >> 32) as u32).to_le_bytes();
        let low = (number as u32).to_le_bytes();
        if marks != (b"data".as_slice(), high.as_slice(), low.as_slice()) {
            return None;
        }
        let mut sector: Box<[u8; SECTOR]> = Box::new(raw.try_into().ok()?);
        sector[..8].copy_from_slice(&descriptor.leading.get().to_le_bytes());
        sector[SECTOR - 4..].copy_from_slice(&descriptor.trailing);
        Some(sector)
    }
}
