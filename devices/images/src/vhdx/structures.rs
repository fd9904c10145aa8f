//! The file with its log replayed: in place if the file may be written, otherwise in memory.

use std::io;

use super::header::Current;
use super::layout::{NO_GUID, SECTOR};
use super::log::{self, Content, Replay};
use crate::error::Flaw;
use crate::file::ImageFile;

/// Access to structures.
#[derive(Debug)]
pub(super) struct Structures {
    pub(super) file: ImageFile,
    /// The changes of the log, if the file must not be changed.
    overlay: Replay,
    /// Entries of the log that was found.
    pub(super) replayed: usize,
    /// The file's length in bytes, as if its log were replayed.
    pub(super) length: u64,
    /// The file's real end, if it must not grow: bytes of the replayed file beyond it read as zero.
    end: Option<u64>,
}

impl Structures {
    /// Replays the log.
    pub(super) fn new(
        file: ImageFile,
        current: &mut Current,
        read_only: bool,
    ) -> Result<Self, Flaw> {
        let replay = log::read(&file, &current.header)?;
        let end = file.len()?;
        let length = end.max(replay.file_length);
        let replayed = replay.entries;
        if read_only {
            return Ok(Self { file, overlay: replay, replayed, length, end: Some(end) });
        }
        if current.header.log != NO_GUID {
            apply(&file, &replay)?;
            current.update(&file, |header| header.log = NO_GUID)?;
        }
        Ok(Self { length: file.len()?, end: None, file, overlay: Replay::default(), replayed })
    }

    /// Returns the number of bytes, out of `length` from `offset` on, that are really in the file.
    pub(super) fn there(&self, offset: u64, length: u64) -> u64 {
        self.end.map_or(length, |end| end.saturating_sub(offset).min(length))
    }

    /// Returns whether all of `length` bytes from `offset` on are really in the file.
    pub(super) fn is_there(&self, offset: u64, length: u64) -> bool {
        self.end.is_none_or(|end| offset.checked_add(length).is_some_and(|behind| behind <= end))
    }

    /// Reads all of `bytes`.
    pub(super) fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= self.length);
        let Some(end) = end else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        let in_file = self.file.len()?.clamp(offset, end) - offset;
        let (there, beyond) = bytes.split_at_mut(in_file as usize);
        self.file.read(there, offset)?;
        beyond.fill(0);
        for write in &self.overlay.writes {
            let length = match &write.content {
                Content::Sector(_) => SECTOR as u64,
                Content::Zero(length) => *length,
            };
            let (from, to) = (write.offset.max(offset), (write.offset + length).min(end));
            if from >= to {
                continue;
            }
            let target = &mut bytes[(from - offset) as usize..(to - offset) as usize];
            match &write.content {
                Content::Zero(_) => target.fill(0),
                Content::Sector(sector) => {
                    let at = (from - write.offset) as usize;
                    target.copy_from_slice(&sector[at..at + target.len()]);
                }
            }
        }
        Ok(())
    }
}

fn apply(file: &ImageFile, replay: &Replay) -> Result<(), Flaw> {
    if file.len()? < replay.file_length {
        let length = replay.file_length.next_multiple_of(super::layout::MIB);
        file.grow(length)
            .map_err(|error| Flaw::damaged(format!("replaying its log failed: {error}")))?;
    }
    for write in &replay.writes {
        match &write.content {
            Content::Sector(sector) => file.write(&sector[..], write.offset)?,
            Content::Zero(length) => zero(file, write.offset, *length)?,
        }
    }
    file.sync()?;
    Ok(())
}

fn zero(file: &ImageFile, mut offset: u64, length: u64) -> Result<(), Flaw> {
    if file.punch(offset, length).is_ok_and(|done| done) {
        return Ok(());
    }
    let end = offset + length;
    let zeroes = vec![0; 1 << 20];
    while offset < end {
        let len = (end - offset).min(zeroes.len() as u64);
        file.write(&zeroes[..len as usize], offset)?;
        offset += len;
    }
    Ok(())
}
