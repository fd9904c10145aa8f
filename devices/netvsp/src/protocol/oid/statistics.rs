//! Counters of a card for its guest (netvsc section 7.7).

use serde::{Deserialize, Serialize};

use super::super::MacAddress;
use super::super::nvsp::NdisVersion;
use super::answer::OidAnswer;
use super::codes as oid;

/// Totals of a card since its start, over all of its channels. They wrap. A restored card continues
/// those that were saved, as guests expect them not to fall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Frames of the guest that the backend took.
    pub sent: Traffic,
    /// Frames that the guest was given.
    pub received: Traffic,
    /// Frames of the guest that were malformed, or that the backend refused.
    pub send_errors: u64,
    /// Sound frames of the guest that were dropped, as the link was down.
    pub send_discards: u64,
    /// Frames to the guest that were malformed or too long.
    pub receive_errors: u64,
    /// Frames to the guest that were dropped, as no buffer was free.
    pub receive_no_buffer: u64,
}

/// The kinds of destinations that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The address of one card.
    Directed,
    /// A group address other than the broadcast address.
    Multicast,
    /// The broadcast address.
    Broadcast,
}

impl Destination {
    /// Returns the kind of `address`.
    #[inline]
    pub fn of(address: MacAddress) -> Self {
        if !address.is_group() {
            Self::Directed
        } else if address == MacAddress::BROADCAST {
            Self::Broadcast
        } else {
            Self::Multicast
        }
    }
}

/// Frames in one direction, by their destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Frames to the address of one card.
    pub directed: Count,
    /// Frames to a group address other than the broadcast address.
    pub multicast: Count,
    /// Frames to the broadcast address.
    pub broadcast: Count,
}

/// Frames and their bytes, with their Ethernet headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Number of frames.
    pub frames: u64,
    /// Number of bytes.
    pub bytes: u64,
}

impl Statistics {
    /// Adds the totals of another channel.
    pub fn add(&mut self, other: &Self) {
        self.sent.add(other.sent);
        self.received.add(other.received);
        for (sum, value) in [
            (&mut self.send_errors, other.send_errors),
            (&mut self.send_discards, other.send_discards),
            (&mut self.receive_errors, other.receive_errors),
            (&mut self.receive_no_buffer, other.receive_no_buffer),
        ] {
            *sum = sum.wrapping_add(value);
        }
    }

    /// Answers the query of `code`. `None`: it is no counter.
    ///
    /// A counter has 8 bytes for guests with NDIS 6, and its lower 4 for others, whose counters
    /// have 4.
    pub(super) fn answer(&self, code: u32, version: NdisVersion) -> Option<OidAnswer> {
        if code == oid::GEN_STATISTICS {
            return Some(self.to_ndis());
        }
        let number = self.number(code)?;
        let is_wide = version >= NdisVersion::V6_0;
        Some(if is_wide { OidAnswer::new().u64(number) } else { OidAnswer::word(number as u32) })
    }

    fn number(&self, code: u32) -> Option<u64> {
        let (sent, received) = (&self.sent, &self.received);
        Some(match code {
            oid::GEN_XMIT_OK => sent.total().frames,
            oid::GEN_RCV_OK => received.total().frames,
            oid::GEN_XMIT_ERROR => self.send_errors,
            oid::GEN_RCV_ERROR => self.receive_errors,
            oid::GEN_RCV_NO_BUFFER | oid::GEN_RCV_DISCARDS => self.receive_no_buffer,
            oid::GEN_XMIT_DISCARDS => self.send_discards,
            oid::GEN_DIRECTED_BYTES_XMIT => sent.directed.bytes,
            oid::GEN_DIRECTED_FRAMES_XMIT => sent.directed.frames,
            oid::GEN_MULTICAST_BYTES_XMIT => sent.multicast.bytes,
            oid::GEN_MULTICAST_FRAMES_XMIT => sent.multicast.frames,
            oid::GEN_BROADCAST_BYTES_XMIT => sent.broadcast.bytes,
            oid::GEN_BROADCAST_FRAMES_XMIT => sent.broadcast.frames,
            oid::GEN_DIRECTED_BYTES_RCV => received.directed.bytes,
            oid::GEN_DIRECTED_FRAMES_RCV => received.directed.frames,
            oid::GEN_MULTICAST_BYTES_RCV => received.multicast.bytes,
            oid::GEN_MULTICAST_FRAMES_RCV => received.multicast.frames,
            oid::GEN_BROADCAST_BYTES_RCV => received.broadcast.bytes,
            oid::GEN_BROADCAST_FRAMES_RCV => received.broadcast.frames,
            oid::GEN_BYTES_RCV => received.total().bytes,
            oid::GEN_BYTES_XMIT => sent.total().bytes,
            _ => return None,
        })
    }

    /// Returns the NDIS_STATISTICS_INFO structure.
    fn to_ndis(self) -> OidAnswer {
        const DEFAULT_OBJECT: u8 = 0x80;
        const SIZE: u16 = 152;
        let Self { sent, received, .. } = self;
        let frames = |traffic: &Traffic| traffic.each().map(|count| count.frames);
        let bytes = |traffic: &Traffic| traffic.each().map(|count| count.bytes);
        let answer = OidAnswer::new().header(DEFAULT_OBJECT, 1, SIZE).u32(ALL_VALID);
        [
            &[self.receive_no_buffer, self.receive_errors, received.total().bytes][..],
            &frames(&received),
            &[sent.total().bytes],
            &frames(&sent),
            &[self.send_errors, self.send_discards],
            &bytes(&received),
            &bytes(&sent),
        ]
        .into_iter()
        .flatten()
        .fold(answer, |answer, number| answer.u64(*number))
    }
}

impl Traffic {
    /// Counts a frame of `bytes` bytes to `destination`.
    #[inline]
    pub fn count(&mut self, destination: MacAddress, bytes: u32) {
        let count = match Destination::of(destination) {
            Destination::Directed => &mut self.directed,
            Destination::Multicast => &mut self.multicast,
            Destination::Broadcast => &mut self.broadcast,
        };
        count.add(Count { frames: 1, bytes: bytes.into() });
    }

    /// Returns the sum over all destinations.
    pub fn total(&self) -> Count {
        let mut total = Count::default();
        self.each().into_iter().for_each(|count| total.add(count));
        total
    }

    fn add(&mut self, other: Self) {
        self.directed.add(other.directed);
        self.multicast.add(other.multicast);
        self.broadcast.add(other.broadcast);
    }

    /// In the order of NDIS.
    fn each(&self) -> [Count; 3] {
        [self.directed, self.multicast, self.broadcast]
    }
}

impl Count {
    fn add(&mut self, other: Self) {
        self.frames = self.frames.wrapping_add(other.frames);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

/// The flags of all members of NDIS_STATISTICS_INFO: bits 0 to 10 and 15 to 21.
const ALL_VALID: u32 = 0x003F_87FF;
