//! GPADLs: guest memory described to the host (kmcl.md section 4, vmbus-core 4.3).

use alloc::vec::Vec;

use bitflags::bitflags;
use vmbus_protocol::MessageBuffer;
use vmbus_protocol::limits::MAX_GPADL_PAGES;
use vmbus_protocol::message::{GpadlBody, GpadlHeader, GpadlTeardown, MessageType};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use crate::channel::Channel;
use crate::client::Client;
use crate::error::{Error, GpadlError};
use crate::mdl::{Mdl, Range};
use crate::message::Reply;
use crate::platform::Platform;

/// Words (one for each range, one for each page) that one GPADL can have: `range_buflen` is 16 bits, so 65,528 bytes.
pub const MAX_WORDS: usize = MAX_GPADL_PAGES + 1;
/// Words that fit behind a header and behind a body.
const HEADER_WORDS: usize = 27;
const BODY_WORDS: usize = 28;

bitflags! {
    /// Flags of a GPADL (`VMBUS_CHANNEL_GPADL_FLAG_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct GpadlFlags: u32 {
        /// The server should treat it as read-only. A hint between the two drivers: the wire has no place for it, and nothing enforces it.
        const READ_ONLY = 0x1;
    }
}

/// The number of a confirmed GPADL. The driver tells it to its peer in its own protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GpadlHandle(pub(crate) u32);

impl GpadlHandle {
    /// The number on the wire.
    #[must_use]
    pub const fn id(self) -> u32 {
        self.0
    }
}

/// What the client keeps of a GPADL.
#[derive(Debug)]
pub(crate) struct Kept {
    /// A buffer that the client locked.
    locked: Option<Mdl>,
}

impl<P: Platform> Channel<'_, P> {
    /// Describes `data_length` bytes (0: to the end) from byte `start_offset` of a chain to the host. Every piece becomes one range.
    /// When it returns, the host has confirmed: the server may map it at once. Undo it with [`Channel::delete_gpadl`], at the latest in the
    /// closed callback; the memory must stay as it is until then. `VmbChannelCreateGpadlFromMdl`.
    ///
    /// # Errors
    /// [`GpadlError`]: one for each cause. [`GpadlError::TooLarge`] when one GPADL cannot describe it: see
    /// [`Channel::create_gpadls_from_mdl`].
    pub fn create_gpadl_from_mdl(
        &mut self,
        flags: GpadlFlags,
        mdl: &Mdl,
        start_offset: u64,
        data_length: u64,
    ) -> Result<GpadlHandle, GpadlError> {
        self.check_gpadl_call(flags)?;
        let ranges = clip(mdl, start_offset, data_length)?;
        self.create_gpadl(&ranges)
    }

    /// As [`Channel::create_gpadl_from_mdl`], in as few GPADLs as the wire allows: each has at most 8,191 words, one for each range and one
    /// for each page (one piece of up to 8,190 pages fits). A piece is cut at a page boundary where a GPADL is full. All or none: after a
    /// failure no GPADL is left.
    ///
    /// # Errors
    /// [`GpadlError`].
    pub fn create_gpadls_from_mdl(
        &mut self,
        flags: GpadlFlags,
        mdl: &Mdl,
        start_offset: u64,
        data_length: u64,
    ) -> Result<Vec<GpadlHandle>, GpadlError> {
        self.check_gpadl_call(flags)?;
        let ranges = clip(mdl, start_offset, data_length)?;
        let mut handles = Vec::new();
        for part in split(&ranges) {
            match self.create_gpadl(&part) {
                Ok(handle) => handles.push(handle),
                Err(error) => {
                    for handle in handles {
                        self.delete_gpadl(handle)?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(handles)
    }

    /// Describes `byte_count` bytes at a virtual address: they are probed, and locked until the GPADL is deleted.
    /// `VmbChannelCreateGpadlFromBuffer`.
    ///
    /// # Errors
    /// [`GpadlError`]; nothing is locked then.
    pub fn create_gpadl_from_buffer(
        &mut self,
        flags: GpadlFlags,
        address: u64,
        byte_count: u32,
    ) -> Result<GpadlHandle, GpadlError> {
        self.check_gpadl_call(flags)?;
        let mdl = self.client.platform.probe_and_lock(address, byte_count).map_err(GpadlError::Lock)?;
        let created = clip(&mdl, 0, 0).and_then(|ranges| self.create_gpadl(&ranges));
        match created {
            Ok(handle) => {
                if let Some(kept) = self.open_mut().and_then(|open| open.gpadls.get_mut(&handle.0)) {
                    kept.locked = Some(mdl);
                }
                Ok(handle)
            }
            Err(error) => {
                self.client.platform.unlock(&mdl);
                Err(error)
            }
        }
    }

    /// Describes whole pages. `VmbChannelCreateGpadlFromPfnList`.
    ///
    /// # Errors
    /// [`GpadlError`].
    pub fn create_gpadl_from_pfn_list(
        &mut self,
        flags: GpadlFlags,
        pages: &[u64],
    ) -> Result<GpadlHandle, GpadlError> {
        self.check_gpadl_call(flags)?;
        if pages.is_empty() {
            return Err(GpadlError::Empty);
        }
        let too_large = GpadlError::TooLarge { words: pages.len().saturating_add(1) };
        let bytes = pages.len().checked_mul(4096).and_then(|bytes| u32::try_from(bytes).ok());
        let byte_count = bytes.ok_or(too_large)?;
        self.create_gpadl(&[Range { byte_count, byte_offset: 0, pages }])
    }

    /// Takes a GPADL back: returns when the server has unmapped it and nobody but the client can touch the memory. `VmbChannelDeleteGpadl`,
    /// which cannot fail: it hangs where this says [`Error::Stalled`].
    ///
    /// # Errors
    /// [`GpadlError::Unknown`]; [`GpadlError::Link`] when the connection failed: the memory may then still be in use.
    pub fn delete_gpadl(&mut self, handle: GpadlHandle) -> Result<(), GpadlError> {
        let open = self.open_mut().ok_or(GpadlError::Closed)?;
        let relid = open.relid;
        let kept = open.gpadls.remove(&handle.0).ok_or(GpadlError::Unknown(handle.0))?;
        if let Err(error) = self.client.tear_down(relid, handle.0) {
            if let Some(open) = self.open_mut() {
                open.gpadls.insert(handle.0, kept);
            }
            return Err(error.into());
        }
        if let Some(mdl) = kept.locked {
            self.client.platform.unlock(&mdl);
        }
        Ok(())
    }

    /// Handles of the channel's GPADLs, its rings' not among them.
    #[must_use]
    pub fn gpadls(&self) -> Vec<GpadlHandle> {
        self.open_ref()
            .map(|open| open.gpadls.keys().map(|&id| GpadlHandle(id)).collect())
            .unwrap_or_default()
    }

    fn check_gpadl_call(&self, flags: GpadlFlags) -> Result<(), GpadlError> {
        let unknown = flags.bits() & !GpadlFlags::all().bits();
        if unknown != 0 {
            return Err(GpadlError::Flags(unknown));
        }
        self.open_ref().map(|_| ()).ok_or(GpadlError::Closed)
    }

    fn create_gpadl(&mut self, ranges: &[Range<'_>]) -> Result<GpadlHandle, GpadlError> {
        let relid = self.open_ref().ok_or(GpadlError::Closed)?.relid;
        let id = self.client.new_gpadl_id();
        self.client.describe(relid, id, ranges)?;
        match self.open_mut() {
            Some(open) => {
                open.gpadls.insert(id, Kept { locked: None });
                Ok(GpadlHandle(id))
            }
            None => Err(GpadlError::Closed),
        }
    }
}

impl<P: Platform> Client<P> {
    /// Sends the description and waits for the confirmation.
    pub(crate) fn describe(&mut self, relid: u32, id: u32, ranges: &[Range<'_>]) -> Result<(), GpadlError> {
        let words: Vec<U64> = ranges
            .iter()
            .flat_map(|range| core::iter::once(range.head()).chain(range.pages.iter().copied()))
            .map(U64::new)
            .collect();
        let (Ok(buflen), Ok(range_count)) = (u16::try_from(words.len() * 8), u16::try_from(ranges.len()))
        else {
            return Err(GpadlError::TooLarge { words: words.len() });
        };
        let is_reply = move |reply: &Reply| match *reply {
            Reply::GpadlCreated { relid: of, gpadl, status } if of == relid && gpadl == id => Some(status),
            _ => None,
        };
        self.forget_replies(|reply| is_reply(reply).is_some());
        let (first, rest) = words.split_at(words.len().min(HEADER_WORDS));
        let header = GpadlHeader {
            relid: U32::new(relid),
            gpadl: U32::new(id),
            range_buflen: U16::new(buflen),
            range_count: U16::new(range_count),
        };
        self.post(&MessageBuffer::with_data(MessageType::GpadlHeader, &header, first.as_bytes()))?;
        for (number, part) in (1..).zip(rest.chunks(BODY_WORDS)) {
            let body = GpadlBody { message_number: U32::new(number), gpadl: U32::new(id) };
            self.post(&MessageBuffer::with_data(MessageType::GpadlBody, &body, part.as_bytes()))?;
        }
        let status = self.wait_for_reply(Some(relid), is_reply)?;
        if status.is_success() { Ok(()) } else { Err(GpadlError::Host(status)) }
    }

    /// Takes a description back and waits until the host has let go. A rescinded channel has nothing left to take back.
    pub(crate) fn tear_down(&mut self, relid: u32, id: u32) -> Result<(), Error> {
        if self.rescinded.contains(&relid) {
            return Ok(());
        }
        let is_reply = move |reply: &Reply| (*reply == Reply::GpadlTorndown { gpadl: id }).then_some(());
        self.forget_replies(|reply| is_reply(reply).is_some());
        let body = GpadlTeardown { relid: U32::new(relid), gpadl: U32::new(id) };
        self.post(&MessageBuffer::new(MessageType::GpadlTeardown, &body))?;
        match self.wait_for_reply(Some(relid), is_reply) {
            // Before a RESCIND the host has let go of everything.
            Ok(()) | Err(Error::Removed) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The part of a chain that the caller means.
fn clip(mdl: &Mdl, offset: u64, length: u64) -> Result<Vec<Range<'_>>, GpadlError> {
    let total = mdl.total_bytes();
    let rest = total.checked_sub(offset).ok_or(GpadlError::Offset { offset, total })?;
    if length > rest {
        return Err(GpadlError::Length { offset, length, total });
    }
    if rest == 0 {
        return Err(GpadlError::Empty);
    }
    Ok(mdl.ranges(offset, if length == 0 { rest } else { length }))
}

/// The ranges in portions that one GPADL can have.
fn split<'a>(ranges: &[Range<'a>]) -> Vec<Vec<Range<'a>>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut room = MAX_WORDS;
    for range in ranges {
        let mut range = *range;
        loop {
            if range.pages.len() < room {
                room -= range.pages.len() + 1;
                part.push(range);
                break;
            }
            // A range takes a word for itself and at least one page.
            if room >= 2 {
                let (now, later) = range.split(room - 1);
                part.push(now);
                range = later;
            }
            parts.push(core::mem::take(&mut part));
            room = MAX_WORDS;
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn bytes(ranges: &[Range<'_>]) -> Vec<u64> {
        // Every byte by its guest address: the model that any way of cutting must keep.
        ranges
            .iter()
            .flat_map(|range| {
                let first = u64::from(range.byte_offset);
                (first..first + u64::from(range.byte_count))
                    .map(|at| range.pages[(at / 4096) as usize] * 4096 + at % 4096)
            })
            .collect()
    }

    fn chain() -> Mdl {
        let first = Mdl::new(5000, 4000, vec![7, 3, 9]).unwrap();
        let empty = Mdl::new(0, 12, vec![]).unwrap();
        let last = Mdl::new(4096, 1, vec![3, 4]).unwrap();
        first.chain(empty).chain(last)
    }

    #[test]
    fn test_clip_any_offset_and_length_names_the_same_bytes_as_the_concatenation() {
        let chain = chain();
        let all = bytes(&chain.ranges(0, chain.total_bytes()));
        assert_eq!(all.len(), 9096);
        for offset in [0, 1, 95, 96, 97, 4191, 4192, 4193, 4999, 5000, 5001, 9094, 9095] {
            for length in [1, 2, 96, 4096, 5000, 9096 - offset] {
                let Ok(end) = usize::try_from(offset + length) else { continue };
                if end > all.len() || length == 0 {
                    continue;
                }
                let ranges = clip(&chain, offset, length).unwrap();
                assert_eq!(bytes(&ranges), all[offset as usize..end], "{offset} {length}");
                for range in &ranges {
                    assert_eq!(range.pages.len(), crate::mdl::pages_of(range.byte_offset, range.byte_count));
                }
            }
            assert_eq!(bytes(&clip(&chain, offset, 0).unwrap()), all[offset as usize..]);
        }
    }

    #[test]
    fn test_clip_outside_the_chain_is_refused_with_its_own_error() {
        let (chain, total) = (chain(), 9096);
        assert_eq!(clip(&chain, 9097, 0).unwrap_err(), GpadlError::Offset { offset: 9097, total });
        assert_eq!(clip(&chain, u64::MAX, 1).unwrap_err(), GpadlError::Offset { offset: u64::MAX, total });
        assert_eq!(clip(&chain, 0, 9097).unwrap_err(), GpadlError::Length { offset: 0, length: 9097, total });
        let length = u64::MAX;
        assert_eq!(clip(&chain, 1, length).unwrap_err(), GpadlError::Length { offset: 1, length, total });
        assert_eq!(clip(&chain, 9096, 0).unwrap_err(), GpadlError::Empty);
        assert_eq!(clip(&Mdl::new(0, 0, vec![]).unwrap(), 0, 0).unwrap_err(), GpadlError::Empty);
    }

    #[test]
    fn test_split_keeps_all_bytes_and_never_exceeds_the_wire() {
        let many = vec![1; 5000];
        for counts in
            [&[8190][..], &[8191], &[8189, 1], &[8188, 1, 1], &[8190, 8190, 3], &many, &[20_000_usize]]
        {
            let pages: Vec<Vec<u64>> = counts
                .iter()
                .enumerate()
                .map(|(piece, &count)| (0..count as u64).map(|page| page * 3 + piece as u64).collect())
                .collect();
            let ranges: Vec<_> = pages
                .iter()
                .map(|pages| Range { byte_count: (pages.len() * 4096 - 700) as u32, byte_offset: 600, pages })
                .collect();
            let parts = split(&ranges);
            let mut whole = Vec::new();
            for part in &parts {
                let words: usize = part.iter().map(|range| range.pages.len() + 1).sum();
                assert!(words <= MAX_WORDS && !part.is_empty());
                for range in part {
                    assert_eq!(range.pages.len(), crate::mdl::pages_of(range.byte_offset, range.byte_count));
                    whole.extend(range.pages.iter().copied());
                }
            }
            assert_eq!(whole, pages.concat(), "{counts:?}");
            let count = |ranges: &[Range<'_>]| -> u64 {
                ranges.iter().map(|range| u64::from(range.byte_count)).sum()
            };
            assert_eq!(parts.iter().map(|part| count(part)).sum::<u64>(), count(&ranges));
            let words: usize = counts.iter().map(|count| count + 1).sum();
            assert_eq!(parts.len() == 1, words <= MAX_WORDS, "{counts:?}");
        }
    }
}
