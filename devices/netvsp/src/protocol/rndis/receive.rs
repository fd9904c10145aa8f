//! The header in front of a frame to the guest (netvsc sections 5 and 5.2).

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::super::limits::FRAME_OFFSET;
use super::offload::Transport;
use super::packet_info::{HEADER as ITEM_HEADER, kind as info};
use super::vlan::Vlan;
use super::{OFFSET_BASE, kind};

/// A frame to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedFrame {
    /// Offset of the frame in its sub-allocation, in bytes: [`FRAME_OFFSET`], or up to 8 less.
    pub offset: u32,
    /// Bytes of the frame without a VLAN tag, at least 14 and at most the configured maximum.
    pub length: u32,
    /// Knowledge about its checksums.
    pub checksum: ReceiveChecksum,
    /// The tag that was removed from the frame.
    pub vlan: Option<Vlan>,
    /// The RSS hash of its flow.
    pub hash: Option<u32>,
    /// Its place among the parts of a coalesced segment.
    pub fragment: Option<Fragment>,
}

impl ReceivedFrame {
    /// Returns the bytes of the frame's RNDIS message: the length of its range in the transfer-page
    /// packet.
    pub fn message_length(&self) -> u32 {
        self.length.saturating_add(self.offset)
    }
}

impl Default for ReceivedFrame {
    fn default() -> Self {
        Self {
            offset: FRAME_OFFSET,
            length: 0,
            checksum: ReceiveChecksum::default(),
            vlan: None,
            hash: None,
            fragment: None,
        }
    }
}

/// Knowledge about the checksums of a frame to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveChecksum {
    /// The checksum of the IPv4 header.
    pub ip: Verdict,
    /// The checksum of the transport protocol.
    pub transport: Option<(Transport, Verdict)>,
}

/// Knowledge about one checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It was not checked.
    #[default]
    Unknown,
    /// It is right.
    Valid,
    /// The data is right, but the frame's field holds no checksum: a sender on this host left it
    /// to an offload.
    NotComputed,
    /// It is wrong.
    Failed,
}

/// The place of a frame among the parts of a coalesced TCP segment, each in a sub-allocation of the
/// same transfer-page packet (netvsc section 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// It is the first part.
    pub is_first: bool,
    /// It is the last part.
    pub is_last: bool,
    /// Number of the segment, the same for all parts.
    pub id: u16,
}

/// The RNDIS header of a frame: the first bytes of its sub-allocation. The frame itself is at
/// [`FRAME_OFFSET`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveHeader {
    words: [U32; Self::MAX / 4],
    length: u8,
}

impl ReceiveHeader {
    /// Most bytes of a header.
    pub const MAX: usize = FIXED + MAX_ITEMS * ITEM;

    /// Creates the header of `frame`.
    #[inline(always)]
    pub fn new(frame: &ReceivedFrame) -> Self {
        let mut header = Self { words: [U32::ZERO; Self::MAX / 4], length: FIXED as u8 };
        header.push_item(info::CHECKSUM, frame.checksum.to_word());
        header.push_item(info::VLAN, frame.vlan.map(Vlan::to_word));
        header.push_item(info::HASH, frame.hash);
        header.push_item(info::FRAGMENT, frame.fragment.map(Fragment::to_word));
        let info_length = u32::from(header.length) - FIXED as u32;
        // Linux requires 0 for both without per-packet information.
        let info_offset = if info_length == 0 { 0 } else { FIXED as u32 - OFFSET_BASE };
        header.put(0, kind::PACKET);
        header.put(1, frame.message_length());
        header.put(2, frame.offset.saturating_sub(OFFSET_BASE));
        header.put(3, frame.length);
        header.put(7, info_offset);
        header.put(8, info_length);
        header
    }

    /// Returns the bytes of the header.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.words.as_bytes()[..self.length.into()]
    }

    /// Appends one item of per-packet information, if there is a word for it.
    #[inline]
    fn push_item(&mut self, kind: u32, word: Option<u32>) {
        let Some(word) = word else { return };
        let start = usize::from(self.length) / 4;
        self.put(start, ITEM as u32);
        self.put(start + 1, kind);
        self.put(start + 2, ITEM_HEADER as u32);
        self.put(start + 3, word);
        self.length += ITEM as u8;
    }

    #[inline]
    fn put(&mut self, index: usize, word: u32) {
        self.words[index] = U32::new(word);
    }
}

impl ReceiveChecksum {
    fn to_word(self) -> Option<u32> {
        let ip = match self.ip {
            Verdict::Unknown => 0,
            Verdict::Valid => IP_VALID,
            Verdict::NotComputed => IP_VALID | IP_VALUE_INVALID,
            Verdict::Failed => IP_FAILED,
        };
        let transport = self.transport.map_or(0, |(transport, verdict)| {
            let (failed, valid) = match transport {
                Transport::Tcp => (TCP_FAILED, TCP_VALID),
                Transport::Udp => (UDP_FAILED, UDP_VALID),
            };
            match verdict {
                Verdict::Unknown => 0,
                Verdict::Valid => valid,
                Verdict::NotComputed => valid | TRANSPORT_VALUE_INVALID,
                Verdict::Failed => failed,
            }
        });
        Some(ip | transport).filter(|word| *word != 0)
    }
}

impl Fragment {
    fn to_word(self) -> u32 {
        const VERSION: u32 = 1;
        const IN_SUB_ALLOCATION: u32 = 1 << 8;
        VERSION
            | IN_SUB_ALLOCATION
            | (u32::from(self.is_first) << 9)
            | (u32::from(self.is_last) << 10)
            | (u32::from(self.id) << 16)
    }
}

/// Bytes of the header without per-packet information.
const FIXED: usize = 44;
/// Bytes of one item with its word.
const ITEM: usize = ITEM_HEADER + 4;
/// Items that a header has at most: one of each kind.
const MAX_ITEMS: usize = 4;

const _: () = assert!(ReceiveHeader::MAX <= FRAME_OFFSET as usize);

// Bits of the checksum word.
const TCP_FAILED: u32 = 1;
const UDP_FAILED: u32 = 1 << 1;
const IP_FAILED: u32 = 1 << 2;
const TCP_VALID: u32 = 1 << 3;
const UDP_VALID: u32 = 1 << 4;
const IP_VALID: u32 = 1 << 5;
const TRANSPORT_VALUE_INVALID: u32 = 1 << 7;
const IP_VALUE_INVALID: u32 = 1 << 8;
