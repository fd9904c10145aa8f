//! The host's knowledge of a received frame: destination, tag, checksums, hash.

use synthvm_net::software::checksum::{finish, sum};
use synthvm_net::{MIN_FRAME, Pieces, Received, VnetHeader, vlan};

use crate::protocol::oid::{Directions, Offloads, Settings};
use crate::protocol::rndis::{IpVersion, ReceiveChecksum, Transport, Verdict, Vlan};
use crate::protocol::rss::FlowHash;
use crate::protocol::{FrameHeaders, MacAddress, Protocol};

/// Bytes of a frame that are copied for its headers.
const HEAD: usize = 128;
/// Bytes of a frame that are copied first: the two addresses, and the tag if there is one.
const START: usize = vlan::OFFSET + vlan::Tag::LENGTH;

/// A frame for the guest. It begins at `offset` of the space that it was received to.
pub(crate) struct InspectedFrame {
    pub(crate) offset: usize,
    pub(crate) length: usize,
    pub(crate) destination: MacAddress,
    pub(crate) vlan: Option<Vlan>,
    pub(crate) checksum: ReceiveChecksum,
    pub(crate) hash: Option<FlowHash>,
}

/// Inspects a frame in `space`, removes its tag, and fills in its checksum if the guest expects
/// one. `None`: the guest does not want it.
#[inline]
pub(crate) fn inspect(
    space: &Pieces<'_>,
    mut received: Received,
    settings: &Settings,
) -> Option<InspectedFrame> {
    if received.length < MIN_FRAME {
        return None;
    }
    let mut start = [0; START];
    let copied = space.copy_to(received.offset, &mut start);
    let destination = MacAddress(*start.first_chunk()?);
    if copied < MIN_FRAME || !settings.filter.accepts(destination) {
        return None;
    }
    // The memory behind a shorter frame is not the frame's, so `strip` decides.
    let is_tagged = vlan::Tag::from_bytes(&start[vlan::OFFSET..]).is_some();
    let tag = if is_tagged { vlan::strip(space, &mut received) } else { None };
    let mut head;
    let head = if settings.rss.is_enabled || received.header.flags != 0 {
        head = [0; HEAD];
        let head = &mut head[..HEAD.min(received.length)];
        space.copy_to(received.offset, head);
        &*head
    } else {
        &[]
    };
    let checksum = match received.header.flags {
        0 => ReceiveChecksum::default(),
        _ => checksum(space, &received, head, settings.offloads),
    };
    let hash = settings
        .rss
        .is_enabled
        .then(|| FlowHash::of_frame(&settings.rss.key, settings.rss.types, head))
        .flatten();
    let vlan = tag.and_then(|tag| Vlan::from_tag(tag.to_bytes()));
    let Received { offset, length, .. } = received;
    Some(InspectedFrame { offset, length, destination, vlan, checksum, hash })
}

/// Returns the knowledge about the checksums of a frame. A checksum that is left to the receiver
/// is filled in if the guest has not enabled the offload.
fn checksum(
    space: &Pieces<'_>,
    received: &Received,
    head: &[u8],
    offloads: Offloads,
) -> ReceiveChecksum {
    let header = &received.header;
    let transport = FrameHeaders::parse(head).and_then(|headers| transport(&headers, offloads));
    let verdict = if header.needs_checksum() { Verdict::NotComputed } else { Verdict::Valid };
    match transport {
        Some((transport, true)) => {
            ReceiveChecksum { transport: Some((transport, verdict)), ..ReceiveChecksum::default() }
        }
        _ => {
            if header.needs_checksum() {
                fill(space, received);
            }
            ReceiveChecksum::default()
        }
    }
}

/// Returns the transport protocol, and whether the guest accepts knowledge about its checksum.
fn transport(headers: &FrameHeaders, offloads: Offloads) -> Option<(Transport, bool)> {
    let (transport, directions): (_, Directions) = match (headers.protocol, headers.ip_version) {
        (Protocol::Tcp, IpVersion::V4) => (Transport::Tcp, offloads.tcp4),
        (Protocol::Tcp, IpVersion::V6) => (Transport::Tcp, offloads.tcp6),
        (Protocol::Udp, IpVersion::V4) => (Transport::Udp, offloads.udp4),
        (Protocol::Udp, IpVersion::V6) => (Transport::Udp, offloads.udp6),
        (Protocol::Other, _) => return None,
    };
    Some((transport, directions.receive))
}

/// Computes the checksum of a frame and writes it to its field, which holds the sum of the
/// pseudo-header.
fn fill(space: &Pieces<'_>, received: &Received) {
    /// An even number, so that each part begins with the high byte of a word.
    const PART: usize = 2048;
    let VnetHeader { checksum_start, checksum_offset, .. } = received.header;
    if !received.header.fits(received.length) {
        return;
    }
    let end = received.offset + received.length;
    let start = received.offset + usize::from(checksum_start);
    let (mut at, mut total, mut part) = (start, 0, [0; PART]);
    while at < end {
        let part = &mut part[..PART.min(end - at)];
        let copied = space.copy_to(at, part);
        total = sum(total, &part[..copied]);
        at += part.len();
    }
    // In UDP, 0 would mean that there is no checksum; both forms are equal.
    let value = match finish(total) {
        0 => u16::MAX,
        value => value,
    };
    space.copy_from(start + usize::from(checksum_offset), &value.to_be_bytes());
}
