//! Messages of the guest, parsed from a copy of a packet's payload (netvsc section 2).

use zerocopy::little_endian::U32;
use zerocopy::transmute;

use super::super::bytes::{u16_at, u32_at};
use super::negotiated::{Capabilities, NdisVersion};

/// Numbers of NVSP messages.
pub(super) mod kind {
    pub(in super::super) const INIT: u32 = 1;
    pub(in super::super) const INIT_COMPLETE: u32 = 2;
    pub(in super::super) const SEND_NDIS_VERSION: u32 = 100;
    pub(in super::super) const SEND_RECEIVE_BUFFER: u32 = 101;
    pub(in super::super) const SEND_RECEIVE_BUFFER_COMPLETE: u32 = 102;
    pub(in super::super) const REVOKE_RECEIVE_BUFFER: u32 = 103;
    pub(in super::super) const SEND_SEND_BUFFER: u32 = 104;
    pub(in super::super) const SEND_SEND_BUFFER_COMPLETE: u32 = 105;
    pub(in super::super) const REVOKE_SEND_BUFFER: u32 = 106;
    pub(in super::super) const SEND_RNDIS_PACKET: u32 = 107;
    pub(in super::super) const SEND_RNDIS_PACKET_COMPLETE: u32 = 108;
    pub(in super::super) const SEND_NDIS_CONFIG: u32 = 125;
    pub(in super::super) const SEND_VF_ASSOCIATION: u32 = 128;
    pub(in super::super) const SWITCH_DATA_PATH: u32 = 129;
    pub(in super::super) const OID_QUERY_EX: u32 = 131;
    pub(in super::super) const OID_QUERY_EX_COMPLETE: u32 = 132;
    pub(in super::super) const SUBCHANNEL: u32 = 133;
    pub(in super::super) const SEND_INDIRECTION_TABLE: u32 = 134;
    pub(in super::super) const PD_API: u32 = 135;
}

/// A message of the guest. Fields have any value that fits their type: [`Session::handle`] judges
/// them.
///
/// [`Session::handle`]: super::Session::handle
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestMessage {
    /// INIT (1): the guest proposes versions.
    Init {
        /// Lowest version that it accepts.
        min: u32,
        /// Highest version that it accepts.
        max: u32,
    },
    /// SEND_NDIS_VERSION (100): version of the guest's network driver interface.
    NdisVersion(NdisVersion),
    /// SEND_RECV_BUF (101): shares the buffer for messages to the guest.
    SendReceiveBuffer {
        /// Number of the GPADL.
        gpadl: u32,
        /// The guest's number for the buffer.
        id: u16,
    },
    /// REVOKE_RECV_BUF (103): takes the receive buffer back.
    RevokeReceiveBuffer {
        /// The guest's number for the buffer.
        id: u16,
    },
    /// SEND_SEND_BUF (104): shares the buffer for messages to the host.
    SendSendBuffer {
        /// Number of the GPADL.
        gpadl: u32,
        /// The guest's number for the buffer.
        id: u16,
    },
    /// REVOKE_SEND_BUF (106): takes the send buffer back.
    RevokeSendBuffer {
        /// The guest's number for the buffer.
        id: u16,
    },
    /// SEND_RNDIS_PKT (107): carries an RNDIS message.
    Rndis(RndisPacket),
    /// SEND_NDIS_CONFIG (125): frame length and optional features.
    NdisConfig {
        /// Longest frame in bytes, with the Ethernet header.
        max_frame: u32,
        /// Features of the guest.
        capabilities: Capabilities,
    },
    /// SWITCH_DATA_PATH (129): selects the path of the guest's frames.
    SwitchDataPath {
        /// 0: the synthetic path, 1: the virtual function.
        path: u32,
    },
    /// OID_QUERY_EX (131), sent by Windows.
    OidQueryEx,
    /// SUBCHANNEL (133): asks for subchannels.
    Subchannel {
        /// 1: allocate.
        operation: u32,
        /// Number of subchannels.
        count: u32,
    },
    /// PD_API (135): asks for PacketDirect.
    PacketDirect {
        /// 1: configure.
        operation: u32,
    },
    /// A message that the host does not support, or that only a host sends.
    Unsupported(u32),
}

impl GuestMessage {
    /// Parses the payload of an in-band or GPA-direct packet. Bytes after the last field are
    /// ignored: guests pad messages.
    ///
    /// # Errors
    /// The payload ends before the last field of its message.
    pub fn parse(payload: &[u8]) -> Result<Self, TooShort> {
        let length = payload.len();
        let kind = u32_at(payload, 0).ok_or(TooShort { kind: None, length })?;
        Self::parse_body(kind, payload).ok_or(TooShort { kind: Some(kind), length })
    }

    fn parse_body(kind: u32, payload: &[u8]) -> Option<Self> {
        let word = |offset| u32_at(payload, offset);
        Some(match kind {
            kind::INIT => Self::Init { min: word(4)?, max: word(8)? },
            kind::SEND_NDIS_VERSION => {
                Self::NdisVersion(NdisVersion { major: word(4)?, minor: word(8)? })
            }
            kind::SEND_RECEIVE_BUFFER => {
                Self::SendReceiveBuffer { gpadl: word(4)?, id: u16_at(payload, 8)? }
            }
            kind::REVOKE_RECEIVE_BUFFER => Self::RevokeReceiveBuffer { id: u16_at(payload, 4)? },
            kind::SEND_SEND_BUFFER => {
                Self::SendSendBuffer { gpadl: word(4)?, id: u16_at(payload, 8)? }
            }
            kind::REVOKE_SEND_BUFFER => Self::RevokeSendBuffer { id: u16_at(payload, 4)? },
            kind::SEND_RNDIS_PACKET => Self::Rndis(RndisPacket {
                channel_type: ChannelType::from_word(word(4)?),
                section: Section::from_words(word(8)?, word(12)?),
            }),
            kind::SEND_NDIS_CONFIG => {
                let capabilities = u64::from(word(12)?) | (u64::from(word(16)?) << 32);
                Self::NdisConfig { max_frame: word(4)?, capabilities: Capabilities(capabilities) }
            }
            kind::SWITCH_DATA_PATH => Self::SwitchDataPath { path: word(4)? },
            kind::OID_QUERY_EX => Self::OidQueryEx,
            kind::SUBCHANNEL => Self::Subchannel { operation: word(4)?, count: word(8)? },
            kind::PD_API => Self::PacketDirect { operation: word(4)? },
            unsupported => Self::Unsupported(unsupported),
        })
    }

    /// Returns the message's number.
    pub fn kind(&self) -> u32 {
        match self {
            Self::Init { .. } => kind::INIT,
            Self::NdisVersion(_) => kind::SEND_NDIS_VERSION,
            Self::SendReceiveBuffer { .. } => kind::SEND_RECEIVE_BUFFER,
            Self::RevokeReceiveBuffer { .. } => kind::REVOKE_RECEIVE_BUFFER,
            Self::SendSendBuffer { .. } => kind::SEND_SEND_BUFFER,
            Self::RevokeSendBuffer { .. } => kind::REVOKE_SEND_BUFFER,
            Self::Rndis(_) => kind::SEND_RNDIS_PACKET,
            Self::NdisConfig { .. } => kind::SEND_NDIS_CONFIG,
            Self::SwitchDataPath { .. } => kind::SWITCH_DATA_PATH,
            Self::OidQueryEx => kind::OID_QUERY_EX,
            Self::Subchannel { .. } => kind::SUBCHANNEL,
            Self::PacketDirect { .. } => kind::PD_API,
            Self::Unsupported(kind) => *kind,
        }
    }
}

/// The body of SEND_RNDIS_PKT (107).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RndisPacket {
    /// Data or control.
    pub channel_type: ChannelType,
    /// Bytes of the send buffer that begin the RNDIS message. `None`: the packet's own ranges hold
    /// all of it.
    pub section: Option<Section>,
}

impl RndisPacket {
    /// Bytes of the message's header and body.
    pub const LENGTH: usize = 16;

    /// Parses a SEND_RNDIS_PKT with frames. `None`: it is another message.
    #[inline]
    pub fn frames(payload: &[u8; Self::LENGTH]) -> Option<Self> {
        let [kind, channel_type, index, size]: [U32; 4] = transmute!(*payload);
        let channel_type = ChannelType::from_word(channel_type.get());
        let is_frames = kind == kind::SEND_RNDIS_PACKET && channel_type == ChannelType::Data;
        is_frames
            .then(|| Self { channel_type, section: Section::from_words(index.get(), size.get()) })
    }
}

/// The purpose of an RNDIS message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelType {
    /// 0: frames.
    Data,
    /// 1: control messages.
    Control,
    /// Any other number: the packet is completed with a failure.
    Unknown,
}

impl ChannelType {
    const fn from_word(word: u32) -> Self {
        match word {
            0 => Self::Data,
            1 => Self::Control,
            _ => Self::Unknown,
        }
    }

    /// Returns the number on the wire.
    pub(super) const fn word(self) -> u32 {
        match self {
            Self::Data => 0,
            Self::Control => 1,
            Self::Unknown => u32::MAX,
        }
    }
}

/// A part of the send buffer as a guest names it. [`SendBuffer::locate`] checks it.
///
/// [`SendBuffer::locate`]: super::SendBuffer::locate
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Number of the section in which the part begins.
    pub index: u32,
    /// Bytes of the part, which may extend over several sections.
    pub size: u32,
}

impl Section {
    /// Index of a packet without a section.
    pub(super) const NONE: u32 = u32::MAX;

    fn from_words(index: u32, size: u32) -> Option<Self> {
        (index != Self::NONE).then_some(Self { index, size })
    }
}

/// A message that ends before its last field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TooShort {
    /// Number of the message. `None`: not even the number is complete.
    pub kind: Option<u32>,
    /// Bytes of the payload.
    pub length: usize,
}

impl std::fmt::Display for TooShort {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, length } = self;
        match kind {
            Some(kind) => write!(formatter, "message {kind} has only {length} bytes"),
            None => write!(formatter, "{length} bytes are too few for a message"),
        }
    }
}
