//! Messages as guests post them.

use vmbus_protocol::MessageBuffer;
use vmbus_protocol::message::{
    ChannelOnly, CloseReservedChannel, GpadlBody, GpadlHeader, GpadlTeardown, InitiateContact,
    MessageType, ModifyChannel, OpenChannel, OpenReservedChannel, TlConnectRequest,
};
use vmbus_protocol::{Guid, message};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes};

/// Range data bytes that fit behind a header and in a body.
pub const HEADER_DATA: usize = 220;
pub const BODY_DATA: usize = 224;

/// One range of a page list.
#[derive(Clone, Debug)]
pub struct Range {
    pub count: u32,
    pub offset: u32,
    pub pages: Vec<u64>,
}

impl Range {
    /// Whole pages `first..first + pages`.
    pub fn pages(first: u64, pages: usize) -> Self {
        let count = u32::try_from(pages * 4096).unwrap();
        Self { count, offset: 0, pages: (first..first + pages as u64).collect() }
    }
}

fn build<T: IntoBytes + Immutable>(kind: MessageType, body: &T) -> Vec<u8> {
    MessageBuffer::new(kind, body).as_bytes().to_vec()
}

fn bare(kind: MessageType) -> Vec<u8> {
    MessageBuffer::bare(kind).as_bytes().to_vec()
}

pub fn contact(word: u32, target_vp: u32) -> Vec<u8> {
    contact_with(&InitiateContact::new(word, target_vp))
}

pub fn contact_with(body: &InitiateContact) -> Vec<u8> {
    build(MessageType::InitiateContact, body)
}

pub fn request_offers() -> Vec<u8> {
    bare(MessageType::RequestOffers)
}

pub fn unload() -> Vec<u8> {
    bare(MessageType::Unload)
}

pub fn header(relid: u32, id: u32, range_count: u16, range_buflen: u16, data: &[u8]) -> Vec<u8> {
    let body = GpadlHeader {
        relid: U32::new(relid),
        gpadl: U32::new(id),
        range_buflen: U16::new(range_buflen),
        range_count: U16::new(range_count),
    };
    MessageBuffer::with_data(MessageType::GpadlHeader, &body, data).as_bytes().to_vec()
}

pub fn body(id: u32, data: &[u8]) -> Vec<u8> {
    // Like Linux: the message number is 0 in each.
    let body = GpadlBody { message_number: U32::ZERO, gpadl: U32::new(id) };
    MessageBuffer::with_data(MessageType::GpadlBody, &body, data).as_bytes().to_vec()
}

/// The range data of a page list.
pub fn range_data(ranges: &[Range]) -> Vec<u8> {
    let mut data = Vec::new();
    for range in ranges {
        data.extend(range.count.to_le_bytes());
        data.extend(range.offset.to_le_bytes());
        range.pages.iter().for_each(|page| data.extend(page.to_le_bytes()));
    }
    data
}

/// A header and as many bodies as its page list needs. Data is cut at whole words, as every guest
/// does.
pub fn gpadl(relid: u32, id: u32, ranges: &[Range]) -> Vec<Vec<u8>> {
    let data = range_data(ranges);
    let len = u16::try_from(data.len()).unwrap();
    let (first, rest) = data.split_at(data.len().min(HEADER_DATA / 8 * 8));
    let mut messages = vec![header(relid, id, u16::try_from(ranges.len()).unwrap(), len, first)];
    messages.extend(rest.chunks(BODY_DATA).map(|data| body(id, data)));
    messages
}

pub fn teardown(relid: u32, id: u32) -> Vec<u8> {
    build(
        MessageType::GpadlTeardown,
        &GpadlTeardown { relid: U32::new(relid), gpadl: U32::new(id) },
    )
}

/// The open id is the relid, as with Linux.
pub fn open(relid: u32, ring: u32, downstream: u32, vp: u32) -> Vec<u8> {
    open_with_id(relid, relid, ring, downstream, vp)
}

pub fn open_with_id(relid: u32, open_id: u32, ring: u32, downstream: u32, vp: u32) -> Vec<u8> {
    let body = OpenChannel {
        relid: U32::new(relid),
        open_id: U32::new(open_id),
        ring_gpadl: U32::new(ring),
        target_vp: U32::new(vp),
        downstream_page_offset: U32::new(downstream),
        user_data: [7; 120],
    };
    build(MessageType::OpenChannel, &body)
}

fn channel_only(kind: MessageType, relid: u32) -> Vec<u8> {
    build(kind, &ChannelOnly { relid: U32::new(relid) })
}

pub fn close(relid: u32) -> Vec<u8> {
    channel_only(MessageType::CloseChannel, relid)
}

pub fn release(relid: u32) -> Vec<u8> {
    channel_only(MessageType::RelidReleased, relid)
}

pub fn modify(relid: u32, vp: u32) -> Vec<u8> {
    build(
        MessageType::ModifyChannel,
        &ModifyChannel { relid: U32::new(relid), target_vp: U32::new(vp) },
    )
}

pub fn open_reserved(relid: u32, vp: u32, sint: u32) -> Vec<u8> {
    let body = OpenReservedChannel {
        relid: U32::new(relid),
        target_vp: U32::new(vp),
        target_sint: U32::new(sint),
        ring_gpadl: U32::new(1),
        downstream_page_offset: U32::new(2),
    };
    build(MessageType::OpenReservedChannel, &body)
}

pub fn close_reserved(relid: u32, vp: u32, sint: u32) -> Vec<u8> {
    let body = CloseReservedChannel {
        relid: U32::new(relid),
        target_vp: U32::new(vp),
        target_sint: U32::new(sint),
    };
    build(MessageType::CloseReservedChannel, &body)
}

pub fn tl_connect(endpoint: Guid, service: Guid) -> Vec<u8> {
    build(MessageType::TlConnectRequest, &TlConnectRequest { endpoint, service })
}

/// Returns a message of `kind` with a body of zeroes, of the minimum size of its type.
pub fn zeroes(kind: MessageType) -> Vec<u8> {
    MessageBuffer::with_data(kind, &(), &vec![0; kind.min_size() - message::HEADER_SIZE])
        .as_bytes()
        .to_vec()
}
