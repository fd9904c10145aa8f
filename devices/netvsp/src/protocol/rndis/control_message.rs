//! Control messages to the guest: answers and indications (netvsc sections 6 and 9).

use super::super::limits::{MAX_PACKETS_PER_MESSAGE, PACKET_ALIGNMENT_SHIFT};
use super::super::oid::{Link, OffloadRevision, Offloads, OidAnswer};
use super::status::RndisStatus;
use super::{OFFSET_BASE, kind};

/// A control message to the guest, for one sub-allocation. It is sent in a transfer-page packet of
/// its own on the primary channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlMessage {
    bytes: [u8; Self::MAX],
    length: u16,
}

impl ControlMessage {
    /// Most bytes of a message: an answer with the longest information.
    pub const MAX: usize = 24 + OidAnswer::MAX;

    /// Returns the bytes of the message.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length.into()]
    }

    /// INDICATE_STATUS: the link is up or down. Send it after INITIALIZE, and at least 5 seconds
    /// after the one before: older guests lose quick changes.
    pub fn media_connect(is_up: bool) -> Self {
        Self::indicate(if is_up { MEDIA_CONNECT } else { MEDIA_DISCONNECT }, &[])
    }

    /// INDICATE_STATUS: the network behind the link is another one. Linux renews its addresses.
    pub fn network_change() -> Self {
        Self::indicate(NETWORK_CHANGE, &[])
    }

    /// INDICATE_STATUS: the speed of the link changed. Only for guests with
    /// [`Capabilities::TEAMING`](crate::protocol::nvsp::Capabilities::TEAMING).
    pub fn link_speed(link: Link) -> Self {
        Self::indicate(LINK_SPEED_CHANGE, &link.speed_in_100_bits().to_le_bytes())
    }

    /// INDICATE_STATUS: these offloads are enabled now.
    pub fn offload_config(offloads: Offloads, revision: OffloadRevision) -> Self {
        Self::indicate(TASK_OFFLOAD_CURRENT_CONFIG, offloads.to_ndis(revision).bytes())
    }

    pub(super) fn initialize_complete(id: u32, status: RndisStatus) -> Self {
        const MAJOR: u32 = 1;
        const MINOR: u32 = 0;
        const CONNECTIONLESS: u32 = 1;
        const ETHERNET: u32 = 0;
        const MAX_TRANSFER: u32 = 0xEFFF_FFFF;
        let body = [
            id,
            status.number(),
            MAJOR,
            MINOR,
            CONNECTIONLESS,
            ETHERNET,
            MAX_PACKETS_PER_MESSAGE,
            MAX_TRANSFER,
            PACKET_ALIGNMENT_SHIFT,
            0,
            0,
        ];
        Self::new(kind::INITIALIZE | kind::COMPLETE, &body, &[])
    }

    /// QUERY_CMPLT. An error has no information, and its length is 0.
    pub(super) fn query_complete(id: u32, answer: &Result<OidAnswer, RndisStatus>) -> Self {
        let (status, data) = match answer {
            Ok(answer) => (RndisStatus::Success, answer.bytes()),
            Err(status) => (*status, &[][..]),
        };
        let offset = if data.is_empty() { 0 } else { 16 };
        let body = [id, status.number(), data.len() as u32, offset];
        Self::new(kind::QUERY | kind::COMPLETE, &body, data)
    }

    pub(super) fn set_complete(id: u32, status: RndisStatus) -> Self {
        Self::new(kind::SET | kind::COMPLETE, &[id, status as u32], &[])
    }

    /// RESET_CMPLT, which has no number of a request: not supported, and no address was lost.
    pub(super) fn reset_refused() -> Self {
        let body = [RndisStatus::NotSupported.number(), 0];
        Self::new(kind::RESET | kind::COMPLETE, &body, &[])
    }

    pub(super) fn keepalive_complete(id: u32) -> Self {
        let body = [id, RndisStatus::Success.number()];
        Self::new(kind::KEEPALIVE | kind::COMPLETE, &body, &[])
    }

    fn indicate(status: u32, data: &[u8]) -> Self {
        let offset = if data.is_empty() { 0 } else { 12 };
        Self::new(kind::INDICATE_STATUS, &[status, data.len() as u32, offset], data)
    }

    /// Creates a message of a header, `body` and `data`, which fit into [`Self::MAX`] bytes.
    fn new(kind: u32, body: &[u32], data: &[u8]) -> Self {
        let data_start = OFFSET_BASE as usize + 4 * body.len();
        let length = (data_start + data.len()).min(Self::MAX);
        let mut bytes = [0; Self::MAX];
        let words = [kind, length as u32].into_iter().chain(body.iter().copied());
        for (field, word) in bytes.chunks_exact_mut(4).zip(words) {
            field.copy_from_slice(&word.to_le_bytes());
        }
        for (byte, data) in bytes[data_start..].iter_mut().zip(data) {
            *byte = *data;
        }
        Self { bytes, length: length as u16 }
    }
}

// Status of indications.
const MEDIA_CONNECT: u32 = 0x4001_000B;
const MEDIA_DISCONNECT: u32 = 0x4001_000C;
const LINK_SPEED_CHANGE: u32 = 0x4001_0013;
const NETWORK_CHANGE: u32 = 0x4001_0018;
const TASK_OFFLOAD_CURRENT_CONFIG: u32 = 0x4002_0006;
