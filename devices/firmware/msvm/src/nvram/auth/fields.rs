//! Elements of a DER string, read one after another.

use der::{Reader, SliceReader, Tag, TagNumber};

/// The rest of a constructed element's content. Nothing is nested deeper than its callers descend.
pub(super) struct Fields<'a>(SliceReader<'a>);

impl<'a> Fields<'a> {
    /// Returns the elements of `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Fields<'a>> {
        SliceReader::new(bytes).ok().map(Fields)
    }

    /// Returns whether no element is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_finished()
    }

    /// Returns the tag of the next element.
    pub(super) fn tag(&self) -> Option<Tag> {
        Tag::peek(&self.0).ok()
    }

    /// Returns the next element with its tag and length.
    pub(super) fn element(&mut self) -> Option<&'a [u8]> {
        self.0.tlv_bytes().ok()
    }

    /// Returns the content of the next element, which has this tag.
    pub(super) fn content(&mut self, tag: Tag) -> Option<&'a [u8]> {
        if self.tag()? != tag {
            return None;
        }
        content(self.element()?)
    }

    /// Returns the elements in the next element, which has this tag.
    pub(super) fn nested(&mut self, tag: Tag) -> Option<Fields<'a>> {
        Fields::new(self.content(tag)?)
    }

    /// Returns the next element with its tag and length, if it has this tag.
    pub(super) fn optional(&mut self, tag: Tag) -> Option<Option<&'a [u8]>> {
        if self.is_empty() || self.tag()? != tag {
            return Some(None);
        }
        self.element().map(Some)
    }

    /// Returns the object identifier of the next element, an AlgorithmIdentifier.
    pub(super) fn algorithm(&mut self) -> Option<&'a [u8]> {
        self.nested(Tag::Sequence)?.content(Tag::ObjectIdentifier)
    }
}

/// Returns the content of an element.
pub(super) fn content(element: &[u8]) -> Option<&[u8]> {
    let mut reader = SliceReader::new(element).ok()?;
    let header = <der::Header as der::Decode>::decode(&mut reader).ok()?;
    reader.read_slice(header.length()).ok()
}

/// Returns the tag \[number\] of a constructed element.
pub(super) fn context(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: true, number: TagNumber(number) }
}
