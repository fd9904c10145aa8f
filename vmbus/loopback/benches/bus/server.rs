//! The bus with a guest that shares page lists, without rings: the fixture of benches of GPADLs.

use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmbus_gpadl::{GpadlKey, GpadlView, GuestRam, ReleaseSink};
use vmbus_host::Offer;
use vmbus_host::core::{Action, Core};
use vmbus_protocol::message::{
    GpadlBody, GpadlHeader, GpadlTeardown, InitiateContact, MessageType,
};
use vmbus_protocol::{Guid, MessageBuffer, Version, guid};
use zerocopy::little_endian::{U16, U32};

/// Pages of guest memory in every map, distributed over its regions.
pub(crate) const RAM_PAGES: u64 = 1 << 16;
/// Pages between two regions that are not in the map.
const HOLE_PAGES: u64 = 512;
/// Page numbers in a header and in a body.
const HEADER_WORDS: usize = 27;
pub(crate) const BODY_WORDS: usize = 28;
/// The guest's handle of the GPADL.
const GPADL: u32 = 0xE1E10;
/// The connection to which a guest posts its messages.
const CONNECTION: u32 = 4;
/// The first channel.
const RELID: u32 = 1;

/// The positions of the pages of a list.
#[derive(Clone, Copy)]
pub(crate) enum Order {
    Scattered,
    /// Pairs of neighbours.
    Half,
    Contiguous,
}

struct Nobody;

impl ReleaseSink for Nobody {
    fn gpadl_released(&self, _: GpadlKey) {}
}

/// The bus with one offered channel and a connected guest.
pub(crate) struct Server {
    core: Core,
    actions: Vec<Action>,
}

impl Server {
    pub(crate) fn new(ram: GuestRam) -> Server {
        let mut core = Core::new(ram, 1, Arc::new(Nobody));
        core.offer(Offer::new(guid::class::SCSI, Guid::default(), 0)).unwrap();
        let contact = InitiateContact::new(Version::V5_3.word(), 0);
        let mut server = Server { core, actions: Vec::new() };
        server.message(&MessageBuffer::new(MessageType::InitiateContact, &contact));
        server.message(&MessageBuffer::bare(MessageType::RequestOffers));
        server.core.take_actions(&mut server.actions);
        server
    }

    pub(crate) fn create(&mut self, messages: &[MessageBuffer]) {
        for message in messages {
            self.message(message);
        }
        self.answered();
    }

    /// Maps the only GPADL.
    pub(crate) fn map(&self) -> GpadlView {
        self.core.gpadl(RELID, GPADL).unwrap().map().unwrap()
    }

    pub(crate) fn teardown(&mut self) {
        let body = GpadlTeardown { relid: U32::new(RELID), gpadl: U32::new(GPADL) };
        self.message(&MessageBuffer::new(MessageType::GpadlTeardown, &body));
        self.answered();
    }

    fn message(&mut self, message: &MessageBuffer) {
        self.core.message(CONNECTION, message.as_bytes()).unwrap();
    }

    /// Checks that the guest gets exactly one answer.
    fn answered(&mut self) {
        self.actions.clear();
        self.core.take_actions(&mut self.actions);
        assert_eq!(self.actions.len(), 1, "{:?}", self.actions);
    }
}

/// Returns RAM of `regions` equal regions with holes between them.
pub(crate) fn ram(regions: u64) -> GuestRam {
    let bytes = usize::try_from(RAM_PAGES / regions * 4096).unwrap();
    let ranges: Vec<_> = (0..regions)
        .map(|index| (GuestAddress(region_start(index, regions) * 4096), bytes))
        .collect();
    GuestRam::new(GuestMemoryMmap::from_ranges(&ranges).unwrap()).unwrap()
}

fn region_start(index: u64, regions: u64) -> u64 {
    index * (RAM_PAGES / regions + HOLE_PAGES)
}

/// Returns page numbers in RAM of `regions` regions. They are distributed over all regions unless
/// they are contiguous.
pub(crate) fn pages(count: u64, order: Order, regions: u64) -> Vec<u64> {
    let per_region = RAM_PAGES / regions;
    let scatter = |index: u64| index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    let page = |index| match order {
        Order::Scattered => scatter(index) % RAM_PAGES,
        Order::Half => scatter(index / 2) % (RAM_PAGES / 2) * 2 + index % 2,
        Order::Contiguous => index,
    };
    let place = |page| region_start(page / per_region, regions) + page % per_region;
    (0..count).map(|index| place(page(index))).collect()
}

/// Returns the messages by which a guest shares `pages` as one range.
pub(crate) fn create_messages(pages: &[u64]) -> Vec<MessageBuffer> {
    let bytes = u64::try_from(pages.len()).unwrap() * 4096;
    let data: Vec<u8> =
        std::iter::once(&bytes).chain(pages).flat_map(|word| word.to_le_bytes()).collect();
    let (first, rest) = data.split_at(data.len().min(HEADER_WORDS * 8));
    let header = GpadlHeader {
        relid: U32::new(RELID),
        gpadl: U32::new(GPADL),
        range_buflen: U16::new(u16::try_from(data.len()).unwrap()),
        range_count: U16::new(1),
    };
    let body = GpadlBody { message_number: U32::ZERO, gpadl: U32::new(GPADL) };
    let mut messages = vec![MessageBuffer::with_data(MessageType::GpadlHeader, &header, first)];
    let bodies = rest.chunks(BODY_WORDS * 8);
    messages
        .extend(bodies.map(|part| MessageBuffer::with_data(MessageType::GpadlBody, &body, part)));
    messages
}
