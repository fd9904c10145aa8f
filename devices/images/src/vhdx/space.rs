//! The used parts of the file, and the allocation of more space.

use std::collections::HashMap;

use synthvm_block::IoError;

use super::layout::MIB;
use crate::error::Flaw;
use crate::file::ImageFile;

/// The file grows by at least this much, durably, so that few blocks wait for its growth.
const GROWTH: u64 = 64 << 20;

/// Space in the file.
#[derive(Debug)]
pub(super) struct Space {
    /// Begin and end of unused parts, in order, in whole MiB. They read as zero once
    /// [`Space::clean`] has run.
    free: Vec<(u64, u64)>,
    /// The part by which the file has grown. It becomes free space when the new length is durable.
    grown: Option<(u64, u64)>,
    /// Whether the file has grown since it was opened.
    grows: bool,
    /// The file's durable length in bytes.
    length: u64,
    /// Space of blocks that are now zero. It is reserved for the same block while the file is open,
    /// so that a request still in progress for that block cannot reach another one.
    kept: HashMap<u64, u64>,
}

/// A used range and its name.
pub(super) type Used = (u64, u64, &'static str);

impl Space {
    /// Returns the space of a file in which `used` is in use (begin, length, name). Those ranges
    /// must not overlap and must lie in the file. The rest is free.
    pub(super) fn new(mut used: Vec<Used>, file: u64) -> Result<Self, Flaw> {
        used.sort_unstable();
        let mut free = Vec::new();
        let (mut end, mut last) = (0_u64, "nothing");
        for (begin, length, name) in used {
            if begin < end {
                return Err(Flaw::damaged(format!("{name} at {begin} overlaps {last}")));
            }
            let from = end.next_multiple_of(MIB);
            if from < begin {
                free.push((from, begin));
            }
            end = begin.checked_add(length).filter(|&end| end <= file).ok_or_else(|| {
                Flaw::damaged(format!(
                    "{name} at {begin} lies beyond the file's end ({file} bytes)"
                ))
            })?;
            last = name;
        }
        let (from, to) = (end.next_multiple_of(MIB), file / MIB * MIB);
        if from < to {
            free.push((from, to));
        }
        Ok(Self { free, grown: None, grows: false, length: file, kept: HashMap::new() })
    }

    /// Returns the number of unused bytes.
    pub(super) fn unused(&self) -> u64 {
        self.free.iter().map(|(begin, end)| end - begin).sum()
    }

    /// Makes free space read as zero. Space that the file system cannot zero stays unused.
    pub(super) fn clean(&mut self, file: &ImageFile) -> Result<(), IoError> {
        for &(begin, end) in &self.free {
            if !file.punch(begin, end - begin)? {
                self.free.clear();
                break;
            }
        }
        Ok(())
    }

    /// Takes space of `length` bytes for `block`, which reads as zero and is durably part of the
    /// file. `None`: such space exists after a sync of the file and [`Space::settle`].
    pub(super) fn take(
        &mut self,
        file: &ImageFile,
        block: u64,
        length: u64,
    ) -> Result<Option<u64>, IoError> {
        if let Some(offset) = self.kept.remove(&block) {
            return Ok(Some(offset));
        }
        if let Some(range) = self.free.iter_mut().find(|(begin, end)| end - begin >= length) {
            let offset = range.0;
            range.0 += length;
            self.free.retain(|(begin, end)| begin < end);
            return Ok(Some(offset));
        }
        self.extend(file, length)?;
        Ok(None)
    }

    /// Returns space that was taken and is not used.
    pub(super) fn keep(&mut self, block: u64, offset: u64) {
        self.kept.insert(block, offset);
    }

    /// Returns whether less than half of the last growth is left.
    pub(super) fn runs_low(&self, length: u64) -> bool {
        let left = self
            .free
            .last()
            .filter(|(_, end)| *end == self.length)
            .map_or(0, |(begin, end)| end - begin);
        self.grows && self.grown.is_none() && left < length.max(GROWTH / 2)
    }

    /// Makes the file longer by at least `length` bytes. They are free after [`Space::settle`].
    pub(super) fn extend(&mut self, file: &ImageFile, length: u64) -> Result<(), IoError> {
        let begin = self.length.next_multiple_of(MIB);
        if self.grown.is_some_and(|(_, end)| end - begin >= length) {
            return Ok(());
        }
        let mut end = begin + length.max(GROWTH);
        if let Err(error) = file.grow(end) {
            end = begin + length;
            if error != IoError::NoSpace || file.grow(end).is_err() {
                return Err(if error == IoError::Unsupported { IoError::NoSpace } else { error });
            }
        }
        self.grown = Some((begin, end));
        self.grows = true;
        Ok(())
    }

    /// Returns whether the file has grown since it was last known to be durable.
    pub(super) fn has_grown(&self) -> bool {
        self.grown.is_some()
    }

    /// Makes the growth free space, because the file is durable.
    pub(super) fn settle(&mut self) {
        let Some((begin, end)) = self.grown.take() else { return };
        self.length = end;
        match self.free.last_mut() {
            Some(last) if last.1 == begin => last.1 = end,
            _ => self.free.push((begin, end)),
        }
    }

    /// Truncates free space at the file's end, after the last use of the file. Returns its length
    /// in bytes.
    pub(super) fn trim(&mut self, file: &ImageFile) -> Result<u64, IoError> {
        // The growth is truncated in any case, durable or not.
        self.settle();
        let Some(&(begin, end)) = self.free.last().filter(|(_, end)| *end == self.length) else {
            return Ok(0);
        };
        file.cut(begin)?;
        self.free.pop();
        self.length = begin;
        Ok(end - begin)
    }
}
