//! Messages and completions to the guest (netvsc sections 1.1, 2 and 8).

use vmbus_protocol::wire_enum;

use super::super::limits::{SECTION_SIZE, SEND_TABLE_ENTRIES};
use super::super::sub_allocations::Geometry;
use super::guest_message::{ChannelType, Section, kind};
use super::version::NvspVersion;

wire_enum! {
    /// Status of a completion.
    pub enum NvspStatus: u32 {
        /// No status: the guest tries its next version.
        None = 0,
        /// Done.
        Success = 1,
        /// Refused.
        Failure = 2,
        /// The protocol version is too new.
        TooNew = 3,
        /// The protocol version is too old.
        TooOld = 4,
        /// The RNDIS message is invalid.
        InvalidRndisPacket = 5,
        /// The host is busy.
        Busy = 6,
        /// The protocol is not supported.
        Unsupported = 7,
    }
}

/// A full-size message or completion to the guest: 28 bytes, or 40 at version 6.1, zero-padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMessage {
    bytes: [u8; Self::MAX],
    length: u8,
}

impl HostMessage {
    /// Most bytes of a message.
    pub const MAX: usize = 40;

    /// Returns the bytes of the message. A ring pads them to a multiple of 8.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length.into()]
    }

    /// INIT_COMPLETE with success.
    pub(super) fn initialized(version: NvspVersion) -> Self {
        let negotiated = if version == NvspVersion::V1 { version.number() } else { u32::MAX };
        let body = [negotiated, MAX_MDL_CHAIN, NvspStatus::Success.number()];
        Self::new(version, kind::INIT_COMPLETE, &body)
    }

    /// INIT_COMPLETE for a version that the host does not know.
    pub(super) fn version_refused() -> Self {
        let body = [u32::MAX, MAX_MDL_CHAIN, NvspStatus::None.number()];
        Self::new(NvspVersion::V1, kind::INIT_COMPLETE, &body)
    }

    /// RECV_BUF_COMPLETE: one section with `geometry`, or a failure.
    pub(super) fn receive_buffer(version: NvspVersion, geometry: Option<Geometry>) -> Self {
        let status = success_if(geometry.is_some()).number();
        let body = geometry.map_or([status, 0, 0, 0, 0, 0], |geometry| {
            [status, 1, 0, geometry.size(), geometry.count(), geometry.end()]
        });
        Self::new(version, kind::SEND_RECEIVE_BUFFER_COMPLETE, &body)
    }

    /// SEND_BUF_COMPLETE: the section size, or a failure.
    pub(super) fn send_buffer(version: NvspVersion, accepted: bool) -> Self {
        let size = if accepted { SECTION_SIZE } else { 0 };
        let body = [success_if(accepted).number(), size];
        Self::new(version, kind::SEND_SEND_BUFFER_COMPLETE, &body)
    }

    /// SEND_RNDIS_PKT (107): the payload of the transfer-page packet that carries RNDIS messages
    /// to the guest. `channel_type` must not be `Unknown`.
    pub fn rndis_packet(version: NvspVersion, channel_type: ChannelType) -> Self {
        let body = [channel_type.word(), Section::NONE, 0];
        Self::new(version, kind::SEND_RNDIS_PACKET, &body)
    }

    /// SEND_RNDIS_PKT_COMPLETE (108): completes a packet of the guest.
    pub fn rndis_complete(version: NvspVersion, status: NvspStatus) -> Self {
        Self::new(version, kind::SEND_RNDIS_PACKET_COMPLETE, &[status.number()])
    }

    /// Returns the bytes of [`HostMessage::rndis_packet`] with frames. They are constants, so that
    /// a packet with frames needs no copy of them.
    #[inline]
    pub fn frames(version: NvspVersion) -> &'static [u8] {
        const fn message(version: NvspVersion) -> HostMessage {
            let body = [ChannelType::Data.word(), Section::NONE, 0];
            HostMessage::new(version, kind::SEND_RNDIS_PACKET, &body)
        }
        static SHORT: HostMessage = message(NvspVersion::V6);
        static LONG: HostMessage = message(NvspVersion::V61);
        of_version(version, &SHORT, &LONG)
    }

    /// Returns the bytes of [`HostMessage::rndis_complete`] with success.
    #[inline]
    pub fn frames_sent(version: NvspVersion) -> &'static [u8] {
        const fn message(version: NvspVersion) -> HostMessage {
            let body = [NvspStatus::Success.number()];
            HostMessage::new(version, kind::SEND_RNDIS_PACKET_COMPLETE, &body)
        }
        static SHORT: HostMessage = message(NvspVersion::V6);
        static LONG: HostMessage = message(NvspVersion::V61);
        of_version(version, &SHORT, &LONG)
    }

    /// SEND_VF_ASSOCIATION (128): a virtual function with this serial number was added or removed.
    /// The guest does not complete it. `None`: `version` has no virtual functions.
    pub fn vf_association(version: NvspVersion, added: bool, serial: u32) -> Option<Self> {
        let body = [added.into(), serial];
        version.has_data_paths().then(|| Self::new(version, kind::SEND_VF_ASSOCIATION, &body))
    }

    /// SWITCH_DATA_PATH (129), as its completion or as the host's own message. `path`: 0 for the
    /// synthetic path, 1 for the virtual function.
    pub fn data_path(version: NvspVersion, path: u32) -> Self {
        Self::new(version, kind::SWITCH_DATA_PATH, &[path])
    }

    /// Completion of OID_QUERY_EX: not supported.
    pub(super) fn oid_query_refused(version: NvspVersion) -> Self {
        const NOT_SUPPORTED: u32 = 0xC000_00BB;
        Self::new(version, kind::OID_QUERY_EX_COMPLETE, &[NOT_SUPPORTED, 0])
    }

    /// Completion of SUBCHANNEL. `count`: subchannels that follow, or `None` for a failure.
    pub(super) fn subchannels(version: NvspVersion, count: Option<u16>) -> Self {
        let body = [success_if(count.is_some()) as u32, count.unwrap_or(0).into()];
        Self::new(version, kind::SUBCHANNEL, &body)
    }

    /// Completion of PD_API: not supported.
    pub(super) fn packet_direct_refused(version: NvspVersion, operation: u32) -> Self {
        Self::new(version, kind::PD_API, &[operation, NvspStatus::Failure.number()])
    }

    const fn new(version: NvspVersion, kind: u32, body: &[u32]) -> Self {
        let mut bytes = [0; Self::MAX];
        let mut words = body.len();
        while words > 0 {
            put(&mut bytes, words, body[words - 1]);
            words -= 1;
        }
        put(&mut bytes, 0, kind);
        Self { bytes, length: version.message_size() as u8 }
    }
}

/// Writes word `index` of a message.
const fn put(bytes: &mut [u8; HostMessage::MAX], index: usize, word: u32) {
    let word = word.to_le_bytes();
    let mut byte = 0;
    while byte < word.len() {
        bytes[4 * index + byte] = word[byte];
        byte += 1;
    }
}

impl AsRef<[u8]> for HostMessage {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// SEND_INDIRECTION_TABLE (134): the channels on which the guest is asked to send. In-band, and
/// without a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendTableMessage([u8; Self::LENGTH]);

impl SendTableMessage {
    /// Bytes of the message: 4 of header, 36 of body, 64 of table.
    pub const LENGTH: usize = TABLE_OFFSET + 4 * SEND_TABLE_ENTRIES;

    /// Returns the message with a table of channel indices. `None`: `version` has no subchannels.
    ///
    /// The table is at offset 40, where Linux looks for it regardless of the message's field
    /// (netvsc section 8).
    pub fn new(version: NvspVersion, table: &[u16; SEND_TABLE_ENTRIES]) -> Option<Self> {
        if !version.has_subchannels() {
            return None;
        }
        let mut bytes = [0; Self::LENGTH];
        let header = [kind::SEND_INDIRECTION_TABLE, SEND_TABLE_ENTRIES as u32, TABLE_OFFSET as u32];
        for (field, word) in bytes.chunks_exact_mut(4).zip(header) {
            field.copy_from_slice(&word.to_le_bytes());
        }
        for (field, channel) in bytes[TABLE_OFFSET..].chunks_exact_mut(4).zip(table) {
            field.copy_from_slice(&u32::from(*channel).to_le_bytes());
        }
        Some(Self(bytes))
    }

    /// Returns the bytes of the message.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for SendTableMessage {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

#[inline]
fn of_version(
    version: NvspVersion,
    short: &'static HostMessage,
    long: &'static HostMessage,
) -> &'static [u8] {
    if version >= NvspVersion::V61 { long.bytes() } else { short.bytes() }
}

fn success_if(condition: bool) -> NvspStatus {
    if condition { NvspStatus::Success } else { NvspStatus::Failure }
}

/// Most memory descriptor lists of a packet, a field of INIT_COMPLETE. The value of Hyper-V.
const MAX_MDL_CHAIN: u32 = 34;

/// Offset of the table in SEND_INDIRECTION_TABLE.
const TABLE_OFFSET: usize = 40;
