//! The guest's end of a channel's rings: `vmbus-ring` over the guest's own pages.

use std::sync::Arc;

use vmbus_client::{NtStatus, RingPair};
use vmbus_gpadl::{Gpadl, GpadlKey, GuestBuffer, GuestRam, RangeAssembler, ReleaseSink};
use vmbus_protocol::limits::PAGE_SIZE;
use vmbus_ring::RingMemory;

/// Both rings of a channel, in the guest's view.
pub type LoopbackRings = RingPair;

/// Maps the rings in `pages`, makes both empty, and attaches the guest's ends. The host→guest ring
/// is masked.
///
/// # Errors
/// `INVALID_PARAMETER` when the pages cannot form two rings.
pub fn attach_rings(
    ram: &GuestRam,
    pages: &[u64],
    downstream_page: usize,
) -> Result<LoopbackRings, NtStatus> {
    let (upstream, downstream) =
        map_rings(ram, pages, downstream_page).ok_or(NtStatus::INVALID_PARAMETER)?;
    RingPair::attach(upstream, downstream)
}

fn map_rings(
    ram: &GuestRam,
    pages: &[u64],
    downstream_page: usize,
) -> Option<(RingMemory, RingMemory)> {
    let bytes = u32::try_from(pages.len().checked_mul(PAGE_SIZE)?).ok()?;
    let mut words = u64::from(bytes).to_le_bytes().to_vec();
    words.extend(pages.iter().flat_map(|page| page.to_le_bytes()));
    let buffer = RangeAssembler::assemble(GuestBuffer::new(ram.clone()), 1, &words).ok()?;
    // The guest owns these pages, so no notification is needed when it stops using them.
    let key = GpadlKey { relid: 0, id: 0, serial: 0 };
    let view = Gpadl::new(key, buffer, Arc::new(Nobody)).map().ok()?;
    let upstream = RingMemory::map(view.clone(), 0, downstream_page).ok()?;
    let downstream_pages = pages.len().checked_sub(downstream_page)?;
    let downstream = RingMemory::map(view, downstream_page, downstream_pages).ok()?;
    Some((upstream, downstream))
}

struct Nobody;

impl ReleaseSink for Nobody {
    fn gpadl_released(&self, _: GpadlKey) {}
}
