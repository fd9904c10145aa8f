//! The guest's end of a channel's rings, over any memory that `vmbus-ring` can access.

use alloc::vec;
use alloc::vec::Vec;

use vmbus_ring::{
    Incoming, OutPacket, Outgoing, Packet, PacketKind, RingMemory, SpaceWait, WriteError,
};

use crate::platform::{
    IncomingKind, IncomingPacket, OutgoingKind, OutgoingPacket, RingFault, Rings, Space,
};
use crate::status::NtStatus;

/// Both rings of a channel, in the guest's view. The fields are public, so that tests and benches
/// can use them without the client.
#[derive(Debug)]
pub struct RingPair {
    /// Host to guest.
    pub incoming: Incoming,
    /// Guest to host.
    pub outgoing: Outgoing,
}

impl RingPair {
    /// Makes both rings empty, declares their features and attaches the guest's ends, for
    /// [`Platform::map_rings`](crate::Platform::map_rings). The host→guest ring is masked.
    ///
    /// # Errors
    /// `DEVICE_PROTOCOL_ERROR` if the host already changes the rings.
    pub fn attach(upstream: RingMemory, downstream: RingMemory) -> Result<Self, NtStatus> {
        upstream.reset();
        downstream.reset();
        let corrupt = |_| NtStatus::DEVICE_PROTOCOL_ERROR;
        let incoming = Incoming::new(downstream).map_err(corrupt)?;
        let outgoing = Outgoing::new(upstream).map_err(corrupt)?;
        Ok(Self { incoming, outgoing })
    }
}

impl Rings for RingPair {
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
