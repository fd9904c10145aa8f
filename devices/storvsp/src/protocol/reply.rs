//! Packets to the guest.

use synthvm_storvsc::{
    ExecuteSrb, HEADER, Header, MAX_PACKET, ScsiExtension, ScsiRequest, Version, operation,
};
use vmbus_device::Payload;
use zerocopy::{Immutable, IntoBytes};

use super::status::NtStatus;

/// A packet to the guest: at most [`MAX_PACKET`] bytes, zero-padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    bytes: [u8; MAX_PACKET],
    length: u8,
}

impl Reply {
    /// Returns the packet's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length.into()]
    }

    /// Returns a completion with a status only. It has the size of its request, at most 64 bytes:
    /// Linux drops shorter completions, Windows drops all other sizes (spec section 2.1).
    pub(super) fn status(request_length: usize, status: NtStatus) -> Self {
        let length = request_length.clamp(HEADER, MAX_PACKET) as u8;
        let mut reply = Self { bytes: [0; MAX_PACKET], length };
        reply.put_header(operation::COMPLETE_IO, status);
        reply
    }

    /// Returns a completion with `payload` behind the header, truncated to the request's size.
    pub(super) fn with_payload(
        request_length: usize,
        status: NtStatus,
        payload: &(impl IntoBytes + Immutable),
    ) -> Self {
        let mut reply = Self::status(request_length, status);
        let payload = payload.as_bytes();
        let end = reply.length.into();
        let room = &mut reply.bytes[HEADER..end];
        let length = payload.len().min(room.len());
        room[..length].copy_from_slice(&payload[..length]);
        reply
    }

    /// Returns a completion of EXECUTE_SRB, truncated to the request's size. Built in one copy, as
    /// every command needs one.
    #[inline]
    pub(super) fn with_request(
        request_length: usize,
        status: NtStatus,
        request: ScsiRequest,
    ) -> Self {
        let header = header(operation::COMPLETE_IO, status);
        let packet = ExecuteSrb { header, request, extension: ScsiExtension::default() };
        let length = request_length.clamp(HEADER, MAX_PACKET) as u8;
        Self { bytes: zerocopy::transmute!(packet), length }
    }

    /// Returns the notification that the set of LUNs has changed, or `None` if `version` has no
    /// such packet.
    pub(crate) fn enumerate_bus(version: Version) -> Option<Self> {
        version.has_enumerate_bus().then(|| {
            let mut reply = Self { bytes: [0; MAX_PACKET], length: version.packet_size() as u8 };
            reply.put_header(operation::ENUMERATE_BUS, NtStatus::Success);
            reply
        })
    }

    fn put_header(&mut self, operation: u32, status: NtStatus) {
        self.bytes[..HEADER].copy_from_slice(header(operation, status).as_bytes());
    }
}

#[inline]
fn header(operation: u32, status: NtStatus) -> Header {
    Header { operation: operation.into(), flags: 0.into(), status: status.number().into() }
}

impl AsRef<[u8]> for Reply {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Payload for Reply {
    fn from_saved(saved: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_PACKET];
        bytes.get_mut(..saved.len())?.copy_from_slice(saved);
        Some(Self { bytes, length: saved.len() as u8 })
    }
}
