//! Reads a blob as the firmware does, for firmware of our own and for tests.

use super::{BlobError, EntryType, HEADER, MAX_BYTES};
use crate::fields::le32;

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The type's number; see [`EntryType::from_number`].
    pub number: u32,
    /// The bytes after the header.
    pub content: &'a [u8],
}

/// The entries of a blob that was checked: lengths, count, total and mandatory types.
#[derive(Clone, Debug)]
pub struct BlobReader<'a> {
    entries: Vec<Entry<'a>>,
}

impl<'a> BlobReader<'a> {
    /// Checks the blob at the start of `bytes`, which may be longer.
    ///
    /// # Errors
    /// [`BlobError`]: the firmware would stop.
    pub fn new(bytes: &'a [u8]) -> Result<BlobReader<'a>, BlobError> {
        let number = |at| le32(bytes, at).ok_or(BlobError::Count);
        if number(0)? != EntryType::Count.number() || number(4)? != 2 * HEADER as u32 {
            return Err(BlobError::Count);
        }
        let (count, total) = (number(8)?, number(12)? as usize);
        if total > MAX_BYTES {
            return Err(BlobError::TooLarge);
        }
        let blob = bytes.get(..total).ok_or(BlobError::Count)?;
        let mut entries = Vec::new();
        let mut at = 0;
        while at < blob.len() {
            let entry = entry(blob, at)?;
            at += HEADER + entry.content.len();
            entries.push(entry);
        }
        if entries.len() != count as usize {
            return Err(BlobError::Count);
        }
        let reader = BlobReader { entries };
        match EntryType::MANDATORY.iter().find(|kind| reader.get(**kind).is_none()) {
            Some(kind) => Err(BlobError::Missing(*kind)),
            None => Ok(reader),
        }
    }

    /// Returns the entries in their order.
    #[must_use]
    pub fn entries(&self) -> &[Entry<'a>] {
        &self.entries
    }

    /// Returns the content of the last entry of a type.
    #[must_use]
    pub fn get(&self, kind: EntryType) -> Option<&'a [u8]> {
        let mut from_end = self.entries.iter().rev();
        from_end.find(|entry| entry.number == kind.number()).map(|entry| entry.content)
    }
}

fn entry(blob: &[u8], at: usize) -> Result<Entry<'_>, BlobError> {
    let invalid = BlobError::Length(at);
    let number = le32(blob, at).ok_or(invalid)?;
    let len = le32(blob, at + 4).ok_or(invalid)? as usize;
    if len <= HEADER || !len.is_multiple_of(8) {
        return Err(invalid);
    }
    let content = blob[at..].get(HEADER..len).ok_or(invalid)?;
    let Some(kind) = EntryType::from_number(number) else { return Ok(Entry { number, content }) };
    let is_table = kind.is_acpi_table();
    let has_len = kind.content_len().is_none_or(|expected| expected == content.len());
    let table_len = le32(content, 4).map_or(0, |len| len as usize);
    if !has_len || is_table && (table_len < 36 || table_len > content.len()) {
        return Err(BlobError::Content(kind));
    }
    Ok(Entry { number, content })
}
