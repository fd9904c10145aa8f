//! The guest's frames: what they look like on the ring and in guest memory.

use vmbus_loopback::bare::BareChannel;
use vmbus_ring::{GpaRange, gpa_direct_header};

use crate::guest::{NO_SECTION, REQUEST, SEND, frame, full, packet, words};

/// Number of frames in guest memory that a guest cycles through.
pub(crate) const PLACES: usize = 64;

/// Pages of the send buffer: one section for each place.
pub(crate) const SEND_PAGES: usize = PLACES * SECTION / 4096;
const SECTION: usize = 6144;

/// First page of the frames that are not in the send buffer, and pages of each.
const PAGES: u64 = REQUEST;
const PAGES_EACH: u64 = 18;

/// Payload of a large TCP segment: 64 KiB, less the headers of IP and TCP.
pub(crate) const LARGE: usize = (64 << 10) - 54 - 14;

/// The memory of a frame that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// A section of the send buffer.
    Section,
    /// Pages of the guest, as Linux does it: the RNDIS header in one range, the frame in another.
    Pages,
}

/// The work that is left to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offload {
    None,
    /// The TCP checksum.
    Checksum,
    /// Division into segments of 1,460 bytes.
    Segment,
}

/// A kind of frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Bytes, with the Ethernet header.
    pub(crate) length: usize,
    pub(crate) memory: Memory,
    pub(crate) offload: Offload,
    /// Frames in one message, as Linux sends them when more follow: up to eight in a section.
    pub(crate) packed: usize,
}

impl Kind {
    /// The kinds of frames that are sent.
    pub(crate) const ALL: [Self; 9] = {
        [
            Self::SMALL,
            Self::FULL,
            Self {
                name: "lso64k",
                length: 54 + LARGE,
                memory: Memory::Pages,
                offload: Offload::Segment,
                packed: 1,
            },
            Self { name: "64_packed", packed: 8, ..Self::SMALL },
            Self { name: "1500_packed", packed: 3, ..Self::FULL },
            Self { name: "64_gpa", memory: Memory::Pages, ..Self::SMALL },
            Self { name: "1500_gpa", memory: Memory::Pages, ..Self::FULL },
            Self { name: "64_checksum", offload: Offload::Checksum, ..Self::SMALL },
            Self { name: "1500_checksum", offload: Offload::Checksum, ..Self::FULL },
        ]
    };
    pub(crate) const SMALL: Self =
        Self { name: "64", length: 64, memory: Memory::Section, offload: Offload::None, packed: 1 };
    pub(crate) const FULL: Self = Self { name: "1500", length: 1500, ..Self::SMALL };

    /// Writes the frames to guest memory and returns their packets.
    pub(crate) fn load(&self, channel: &BareChannel) -> Load {
        let packets = (0..PLACES).map(|place| self.place(channel, place as u64)).collect();
        Load { packets, next: 0 }
    }

    fn place(&self, channel: &BareChannel, place: u64) -> ([u8; 40], Vec<u8>) {
        let message = self.message();
        let mut header = Vec::new();
        let nvsp = match self.memory {
            Memory::Section => {
                channel.poke(SEND, place * SECTION as u64, &message);
                words(&[107, 0, place as u32, message.len() as u32])
            }
            Memory::Pages => {
                // The frames of all places may share memory, and large ones must.
                let page = PAGES + place % 16 * PAGES_EACH;
                let (rndis, frame) = message.split_at(message.len() - self.length);
                channel.poke(page, 4096 - rndis.len() as u64, rndis);
                channel.poke(page + 1, 0, frame);
                let pages: Vec<u64> = (page + 1..page + PAGES_EACH).collect();
                let range = |byte_offset, bytes: &[u8], pages| GpaRange {
                    byte_count: bytes.len() as u32,
                    byte_offset,
                    pages,
                };
                let count = frame.len().div_ceil(4096);
                let own = [page];
                let ranges = [
                    range(4096 - rndis.len() as u32, rndis, &own[..]),
                    range(0, frame, &pages[..count]),
                ];
                gpa_direct_header(&ranges, &mut header);
                words(&[107, 0, NO_SECTION, 0])
            }
        };
        let nvsp = full(&nvsp);
        (nvsp.try_into().expect("40 bytes"), header)
    }

    /// Returns the RNDIS message of the frames. All but the last packet are padded to 8 bytes.
    fn message(&self) -> Vec<u8> {
        let last = packet(&self.bytes(), &self.info());
        let mut padded = last.clone();
        padded.resize(last.len().next_multiple_of(8), 0);
        let length = padded.len() as u32;
        padded[4..8].copy_from_slice(&length.to_le_bytes());
        [padded.repeat(self.packed - 1), last].concat()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = frame(1, self.length);
        if self.offload != Offload::None {
            let total = (self.length - 14) as u16;
            let total = if self.offload == Offload::Segment { 0 } else { total }.to_be_bytes();
            bytes[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
            bytes[16..18].copy_from_slice(&total);
            bytes[18..34].copy_from_slice(&[0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            bytes[46] = 0x50;
        }
        bytes
    }

    /// Linux sends the hash of the flow beside each frame.
    fn info(&self) -> Vec<(u32, u32)> {
        const HASH: (u32, u32) = (8, 0x1234_5678);
        match self.offload {
            Offload::None => vec![HASH],
            Offload::Checksum => vec![HASH, (0, 1 | 1 << 2 | 34 << 16)],
            Offload::Segment => vec![HASH, (2, 1460 | 34 << 20 | 1 << 30)],
        }
    }
}

/// Prepared packets, one for each place.
pub(crate) struct Load {
    packets: Vec<([u8; 40], Vec<u8>)>,
    next: usize,
}

impl Load {
    /// Returns the next packet's payload, and the header with its ranges if it has any.
    pub(crate) fn next(&mut self) -> (&[u8; 40], &[u8]) {
        let (payload, header) = &self.packets[self.next % PLACES];
        self.next += 1;
        (payload, header)
    }
}
