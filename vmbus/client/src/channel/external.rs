//! Packets with external data: guest pages that the packet names (vmbus-core 6.3).

use alloc::vec::Vec;

use vmbus_protocol::limits::PAGE_SIZE;

use super::send::{PacketObject, SendFlags};
use crate::error::Error;
use crate::mdl::{Mdl, Range, pages_of};
use crate::platform::Platform;
use crate::state::Channel;

impl<P: Platform> Channel<'_, P> {
    /// Sends `buffer` with `length` bytes (0: all) from `offset` of an MDL chain as external data.
    /// `VmbPacketSendWithExternalMdl`.
    ///
    /// # Errors
    /// See [`Error`]. The flag `WAIT_FOR_COMPLETION` is missing (parameter 7), or offset or length
    /// are outside the chain (5, 6).
    pub fn send_with_external_mdl(
        &mut self,
        packet: PacketObject<P>,
        buffer: &[u8],
        mdl: &Mdl,
        offset: u64,
        length: u64,
        flags: SendFlags,
    ) -> Result<(), Error> {
        if !flags.contains(SendFlags::WAIT_FOR_COMPLETION) {
            return Err(Error::Parameter(7, "external data without WAIT_FOR_COMPLETION"));
        }
        let ranges = external_ranges(mdl, offset, length, flags)?;
        self.submit(packet, buffer, Some(&ranges), flags)
    }

    /// Sends `buffer` with whole pages as external data. `VmbPacketSendWithExternalPfns`.
    ///
    /// # Errors
    /// [`Error`]: flag `WAIT_FOR_COMPLETION` is missing (parameter 6), no page (5).
    pub fn send_with_external_pfns(
        &mut self,
        packet: PacketObject<P>,
        buffer: &[u8],
        pages: &[u64],
        flags: SendFlags,
    ) -> Result<(), Error> {
        if !flags.contains(SendFlags::WAIT_FOR_COMPLETION) {
            return Err(Error::Parameter(6, "external data without WAIT_FOR_COMPLETION"));
        }
        let bytes = pages.len().checked_mul(PAGE_SIZE).and_then(|bytes| u32::try_from(bytes).ok());
        let byte_count =
            bytes.filter(|&bytes| bytes != 0).ok_or(Error::Parameter(5, "no page, or too many"))?;
        self.submit(packet, buffer, Some(&[Range { byte_count, byte_offset: 0, pages }]), flags)
    }

    /// Returns the type-specific header of a GPA-direct packet (vmbus-core 6.3).
    pub(super) fn range_list(&self, ranges: &[Range<'_>]) -> Result<Vec<u8>, Error> {
        let bytes: u64 = ranges.iter().map(|range| u64::from(range.byte_count)).sum();
        let (max_bytes, max_pieces) = self.record().config.max_external;
        let count = u32::try_from(ranges.len()).unwrap_or(u32::MAX);
        if count == 0 {
            return Err(Error::Parameter(4, "external data of no bytes"));
        }
        if bytes > u64::from(max_bytes) || count > max_pieces {
            return Err(Error::ExternalData { bytes, pieces: ranges.len() });
        }
        let mut list = Vec::new();
        list.extend_from_slice(&[0; 4]);
        list.extend_from_slice(&count.to_le_bytes());
        for range in ranges {
            list.extend_from_slice(&range.head().to_le_bytes());
            list.extend(range.pages.iter().flat_map(|page| page.to_le_bytes()));
        }
        Ok(list)
    }
}

/// Returns the part of a chain that a packet carries.
fn external_ranges(
    mdl: &Mdl,
    offset: u64,
    length: u64,
    flags: SendFlags,
) -> Result<Vec<Range<'_>>, Error> {
    let forced = flags.contains(SendFlags::FORCE_MDL_LENGTH);
    let pages_bytes = mdl.pages().len() as u64 * PAGE_SIZE as u64;
    let total = if forced {
        // To the end of the last page of the first piece.
        pages_bytes.saturating_sub(u64::from(mdl.byte_offset()))
    } else {
        mdl.total_bytes()
    };
    let described = if forced { u64::from(mdl.byte_count()) } else { total };
    if offset > described {
        return Err(Error::Parameter(5, "an offset beyond the MDL"));
    }
    let length = if length == 0 { described - offset } else { length };
    if length > total - offset {
        return Err(Error::Parameter(6, "a length beyond the MDL"));
    }
    if !forced {
        return Ok(mdl.ranges(offset, length));
    }
    let start = u64::from(mdl.byte_offset()) + offset;
    let (page, byte_offset) =
        ((start / PAGE_SIZE as u64) as usize, (start % PAGE_SIZE as u64) as u32);
    let byte_count = length as u32;
    let count = pages_of(byte_offset, byte_count);
    if count == 0 {
        return Ok(Vec::new());
    }
    Ok(alloc::vec![Range { byte_count, byte_offset, pages: &mdl.pages()[page..page + count] }])
}
