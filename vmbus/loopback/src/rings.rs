//! The guest's end of a channel's rings: `vmbus-ring` over the guest's own pages.

use std::sync::Arc;

use vmbus_client::NtStatus;
use vmbus_client::platform::{
    IncomingKind, IncomingPacket, OutgoingKind, OutgoingPacket, RingFault, Rings, Space,
};
use vmbus_gpadl::{Gpadl, GpadlKey, GuestBuffer, GuestRam, RangeAssembler, ReleaseSink};
use vmbus_protocol::limits::PAGE_SIZE;
use vmbus_ring::{
    Incoming, OutPacket, Outgoing, Packet, PacketKind, RingMemory, SpaceWait, WriteError,
};

/// Both rings of a channel, in the guest's view. The fields are public, so that tests and benches
/// can use them without the client.
#[derive(Debug)]
pub struct LoopbackRings {
    /// Host to guest.
    pub incoming: Incoming,
    /// Guest to host.
    pub outgoing: Outgoing,
}

impl LoopbackRings {
    /// Maps the rings in `pages`, makes both empty, and attaches the guest's ends. The host→guest
    /// ring is masked.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` when the pages cannot form two rings.
    pub fn map(ram: &GuestRam, pages: &[u64], downstream_page: usize) -> Result<Self, NtStatus> {
        let (upstream, downstream) =
            map_rings(ram, pages, downstream_page).ok_or(NtStatus::INVALID_PARAMETER)?;
        upstream.reset();
        downstream.reset();
        let corrupt = |_| NtStatus::DEVICE_PROTOCOL_ERROR;
        let incoming = Incoming::new(downstream).map_err(corrupt)?;
        let outgoing = Outgoing::new(upstream).map_err(corrupt)?;
        Ok(Self { incoming, outgoing })
    }
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

impl Rings for LoopbackRings {
    fn write(&mut self, packet: &OutgoingPacket<'_>) -> Result<bool, RingFault> {
        let kind = match packet.kind {
            OutgoingKind::InBand => PacketKind::InBand,
            OutgoingKind::GpaDirect => PacketKind::GpaDirect,
            OutgoingKind::Completion => PacketKind::Completion,
        };
        let mut batch = self.outgoing.batch().map_err(|_| RingFault::Corrupt)?;
        let written = batch.write(&OutPacket {
            kind,
            transaction_id: packet.transaction_id,
            completion_requested: packet.completion_requested,
            header: packet.header,
            payload: &[packet.payload],
        });
        match written {
            Ok(()) => {
                let signal = batch.commit();
                self.outgoing.space_came();
                Ok(signal)
            }
            Err(WriteError::Full { needed }) => Err(RingFault::Full { needed }),
            Err(WriteError::TooBig { length, limit }) => Err(RingFault::TooBig { length, limit }),
            Err(_) => Err(RingFault::Corrupt),
        }
    }

    fn wait_for_space(&mut self, needed: u32) -> Result<Space, RingFault> {
        match self.outgoing.wait_for_space(needed) {
            Ok(SpaceWait::Ready) => Ok(Space::Ready),
            Ok(SpaceWait::Signalled) => Ok(Space::Signalled),
            Ok(SpaceWait::Poll) => Ok(Space::Poll),
            Err(_) => Err(RingFault::Corrupt),
        }
    }

    fn read(&mut self, max: usize, out: &mut Vec<IncomingPacket>) -> Result<bool, RingFault> {
        let mut batch = self.incoming.batch().map_err(|_| RingFault::Corrupt)?;
        for _ in 0..max {
            match batch.next() {
                Ok(Some(packet)) => out.push(copy_out(&packet)?),
                Ok(None) => break,
                Err(_) => return Err(RingFault::Corrupt),
            }
        }
        Ok(batch.commit())
    }

    fn mask(&mut self) {
        self.incoming.mask();
    }

    fn unmask(&mut self) -> Result<bool, RingFault> {
        self.incoming.unmask().map_err(|_| RingFault::Corrupt)
    }
}

fn copy_out(packet: &Packet<'_>) -> Result<IncomingPacket, RingFault> {
    let kind = match packet.kind() {
        PacketKind::InBand => IncomingKind::InBand,
        PacketKind::Completion => IncomingKind::Completion,
        PacketKind::TransferPages => {
            let mut ranges = Vec::new();
            let set = packet.transfer_pages(&mut ranges).map_err(|_| RingFault::Corrupt)?;
            let ranges = ranges.iter().map(|range| (range.byte_count, range.byte_offset));
            IncomingKind::TransferPages(set, ranges.collect())
        }
        // A host has no guest pages of its own to describe.
        PacketKind::GpaDirect => return Err(RingFault::Corrupt),
    };
    let mut payload = vec![0; packet.payload_len()];
    packet.read_payload(&mut payload);
    Ok(IncomingPacket {
        kind,
        transaction_id: packet.transaction_id(),
        completion_requested: packet.completion_requested(),
        payload,
    })
}
