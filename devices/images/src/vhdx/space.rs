//! Which parts of the file are in use, and room for more.

use std::collections::HashMap;

use synthvm_block::IoError;

use super::layout::MIB;
use crate::error::Flaw;
use crate::file::ImageFile;

/// The file grows by at least as much, durably, so that few blocks wait for it.
const GROWTH: u64 = 64 << 20;

/// Room in the file.
#[derive(Debug)]
pub(super) struct Space {
    /// Begin and end of what nothing uses, in order, in whole MiB. Reads as zero once [`Space::clean`] has run.
    free: Vec<(u64, u64)>,
    /// The file's new end, which becomes free when it is durable.
    grown: Option<(u64, u64)>,
    /// It has grown since it was opened.
    grows: bool,
    /// Bytes of the file, durably.
    length: u64,
    /// Where blocks were that are zero now. Their room stays theirs while the file is open: whatever is still under way for such a block
    /// can hit no other one.
    kept: HashMap<u64, u64>,
}

/// A used range and what it is.
pub(super) type Used = (u64, u64, &'static str);

impl Space {
    /// Free is what is not in `used` (begin, length, name), which may not overlap and has to lie in the file.
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
                Flaw::damaged(format!("{name} at {begin} lies beyond the file's end ({file} bytes)"))
            })?;
            last = name;
        }
        let (from, to) = (end.next_multiple_of(MIB), file / MIB * MIB);
        if from < to {
            free.push((from, to));
        }
        Ok(Self { free, grown: None, grows: false, length: file, kept: HashMap::new() })
    }

    /// Bytes that nothing uses.
    pub(super) fn unused(&self) -> u64 {
        self.free.iter().map(|(begin, end)| end - begin).sum()
    }

    /// Makes free room read as zero. Where the file system cannot, it stays unused.
    pub(super) fn clean(&mut self, file: &ImageFile) -> Result<(), IoError> {
        for &(begin, end) in &self.free {
            if !file.punch(begin, end - begin)? {
                self.free.clear();
                break;
            }
        }
        Ok(())
    }

    /// Takes room of `length` bytes for `block`, which reads as zero and lies in what is durably the
    /// file. `None`: there is some when the file is durable and [`Space::settle`] was called.
    pub(super) fn take(&mut self, file: &ImageFile, block: u64, length: u64) -> Result<Option<u64>, IoError> {
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

    /// Room that was taken and is not used after all.
    pub(super) fn keep(&mut self, block: u64, offset: u64) {
        self.kept.insert(block, offset);
    }

    /// Whether less than half of what the file grows by is left, since it has grown.
    pub(super) fn runs_low(&self, length: u64) -> bool {
        let left =
            self.free.last().filter(|(_, end)| *end == self.length).map_or(0, |(begin, end)| end - begin);
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

    /// Whether the file has grown and that is not known to be durable.
    pub(super) fn has_grown(&self) -> bool {
        self.grown.is_some()
    }

    /// The file is durable: what it has grown by is free.
    pub(super) fn settle(&mut self) {
        let Some((begin, end)) = self.grown.take() else { return };
        self.length = end;
        match self.free.last_mut() {
            Some(last) if last.1 == begin => last.1 = end,
            _ => self.free.push((begin, end)),
        }
    }

    /// Cuts off free room at the file's end, when nothing uses the file any more. Bytes that it had.
    pub(super) fn trim(&mut self, file: &ImageFile) -> Result<u64, IoError> {
        // It is cut off again, durable or not.
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
