//! GPADLs: guest memory described to the host (kmcl.md section 4, vmbus-core 4.3).

use alloc::vec::Vec;

use vmbus_protocol::MessageBuffer;
use vmbus_protocol::message::{GpadlBody, GpadlHeader, GpadlTeardown, MessageType};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use crate::cut::{clip, split};
use crate::error::{Error, GpadlError};
use crate::mdl::{Mdl, Range};
use crate::message::Reply;
use crate::platform::Platform;
use crate::state::{Channel, Client, Kept};

pub use crate::handles::{GpadlFlags, GpadlHandle, MAX_WORDS};

/// Words that fit behind a header and behind a body.
const HEADER_WORDS: usize = 27;
const BODY_WORDS: usize = 28;

impl<P: Platform> Channel<'_, P> {
    /// Describes `data_length` bytes (0: to the end) from byte `start_offset` of a chain to the
    /// host. Every piece becomes one range. On return the host has confirmed, and the server may
    /// map it immediately. [`Channel::delete_gpadl`] undoes it, at the latest in the closed
    /// callback; the memory must not be reused until then. `VmbChannelCreateGpadlFromMdl`.
    ///
    /// # Errors
    /// See [`GpadlError`]. [`GpadlError::TooLarge`] if one GPADL cannot describe the buffer: use
    /// [`Channel::create_gpadls_from_mdl`] then.
    pub fn create_gpadl_from_mdl(
        &mut self,
        flags: GpadlFlags,
        mdl: &Mdl,
        start_offset: u64,
        data_length: u64,
    ) -> Result<GpadlHandle, GpadlError> {
        self.check_gpadl_call(flags)?;
        let ranges = clip(mdl, start_offset, data_length)?;
        self.create_gpadl(flags, &ranges)
    }

    /// Does the work of [`Channel::create_gpadl_from_mdl`] in as few GPADLs as the wire allows:
    /// each has at most 8,191 words, one for each range and one for each page (one piece of up to
    /// 8,190 pages fits). A piece is split at a page boundary if a GPADL is full. After a failure
    /// no GPADL is left.
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
            match self.create_gpadl(flags, &part) {
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

    /// Describes `byte_count` bytes at a virtual address. They are probed, and locked until the
    /// GPADL is deleted. `VmbChannelCreateGpadlFromBuffer`.
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
        let mdl =
            self.client.platform.probe_and_lock(address, byte_count).map_err(GpadlError::Lock)?;
        let created = clip(&mdl, 0, 0).and_then(|ranges| self.create_gpadl(flags, &ranges));
        match created {
            Ok(handle) => {
                if let Some(kept) = self.open_mut().and_then(|open| open.gpadls.get_mut(&handle.0))
                {
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
        self.create_gpadl(flags, &[Range { byte_count, byte_offset: 0, pages }])
    }

    /// Deletes a GPADL. On return the server has unmapped it, and only the client can access the
    /// memory. `VmbChannelDeleteGpadl`, which cannot fail: it hangs where this call returns
    /// [`Error::Stalled`]. A repeated call waits again.
    ///
    /// # Errors
    /// [`GpadlError::Unknown`]; [`GpadlError::Link`] if the connection failed: the memory may still
    /// be in use then.
    pub fn delete_gpadl(&mut self, handle: GpadlHandle) -> Result<(), GpadlError> {
        let open = self.open_mut().ok_or(GpadlError::Closed)?;
        let relid = open.relid;
        let kept = open.gpadls.get_mut(&handle.0).ok_or(GpadlError::Unknown(handle.0))?;
        if !core::mem::replace(&mut kept.going, true) {
            self.client.ask_tear_down(relid, handle.0)?;
        }
        self.client.await_torndown(relid, handle.0)?;
        let kept = self.open_mut().and_then(|open| open.gpadls.remove(&handle.0));
        let Some(kept) = kept else { return Err(GpadlError::Unknown(handle.0)) };
        if let Some(mdl) = kept.locked {
            self.client.platform.unlock(&mdl);
        }
        Ok(())
    }

    /// Returns the handles of the channel's GPADLs, without those of its rings.
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

    fn create_gpadl(
        &mut self,
        flags: GpadlFlags,
        ranges: &[Range<'_>],
    ) -> Result<GpadlHandle, GpadlError> {
        let relid = self.open_ref().ok_or(GpadlError::Closed)?.relid;
        let id = self.client.new_gpadl_id();
        self.client.describe(relid, id, ranges)?;
        self.client.platform.gpadl_created(relid, id, flags);
        match self.open_mut() {
            Some(open) => {
                open.gpadls.insert(id, Kept { locked: None, going: false });
                Ok(GpadlHandle(id))
            }
            None => Err(GpadlError::Closed),
        }
    }
}

impl<P: Platform> Client<P> {
    /// Sends the description and waits for the confirmation.
    pub(crate) fn describe(
        &mut self,
        relid: u32,
        id: u32,
        ranges: &[Range<'_>],
    ) -> Result<(), GpadlError> {
        let words: Vec<U64> = ranges
            .iter()
            .flat_map(|range| core::iter::once(range.head()).chain(range.pages.iter().copied()))
            .map(U64::new)
            .collect();
        let (Ok(buflen), Ok(range_count)) =
            (u16::try_from(words.len() * 8), u16::try_from(ranges.len()))
        else {
            return Err(GpadlError::TooLarge { words: words.len() });
        };
        let is_reply = move |reply: &Reply| match *reply {
            Reply::GpadlCreated { relid: of, gpadl, status } if of == relid && gpadl == id => {
                Some(status)
            }
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

    /// Tears a GPADL down and waits until the host has released it.
    pub(crate) fn tear_down(&mut self, relid: u32, id: u32) -> Result<(), Error> {
        self.ask_tear_down(relid, id)?;
        self.await_torndown(relid, id)
    }

    fn ask_tear_down(&mut self, relid: u32, id: u32) -> Result<(), Error> {
        // A rescinded channel has no GPADL left.
        if self.rescinded.contains(&relid) {
            return Ok(());
        }
        self.forget_replies(|reply| *reply == Reply::GpadlTorndown { gpadl: id });
        let body = GpadlTeardown { relid: U32::new(relid), gpadl: U32::new(id) };
        self.post(&MessageBuffer::new(MessageType::GpadlTeardown, &body))
    }

    fn await_torndown(&mut self, relid: u32, id: u32) -> Result<(), Error> {
        let is_reply = |reply: &Reply| (*reply == Reply::GpadlTorndown { gpadl: id }).then_some(());
        match self.wait_for_reply(Some(relid), is_reply) {
            // Before a RESCIND the host has released all memory.
            Ok(()) | Err(Error::Removed) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
