//! A small guest: it talks VMBus to a real bus, opens storage channels and speaks storvsp, all over
//! plain memory in this process.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

pub mod channel;
pub mod scsi;
pub mod synic;

use std::sync::Arc;

use synthvm_storvsp::{InlineWorkers, ScsiController};
use vmbus_host::core::ChannelKey;
use vmbus_host::{Device, HvStatus, VmBus};
use vmbus_protocol::message::{
    ChannelOnly, GpadlBody, GpadlCreated, GpadlHeader, GpadlTeardown, InitiateContact, MessageType,
    OfferChannel, OpenChannel, OpenChannelResult,
};
use vmbus_protocol::{Guid, MessageBuffer, Version};
use vmbus_ring::{Incoming, Mode, Outgoing, PlainMemory};
use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U32, U64};

use channel::GuestChannel;
use synic::TestSynic;

/// Pages of RAM.
const PAGES: usize = 4096;
/// Rings are taken from here on; everything from [`DATA`] on is for data.
const FIRST_RING: usize = 16;
/// First page for data.
pub const DATA: u64 = 1024;

const PORT: u32 = 4;

/// The guest and the machine that it runs on.
pub struct Guest {
    pub memory: PlainMemory,
    pub bus: VmBus,
    synic: Arc<TestSynic>,
    pub offers: Vec<GuestOffer>,
    next_page: usize,
    next_gpadl: u32,
    /// Who serves the channels, when no threads do.
    pub inline: Option<InlineWorkers>,
}

/// An offer as the guest got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestOffer {
    pub relid: u32,
    pub class: Guid,
    pub instance: Guid,
    pub subchannel: u16,
    pub flags: u16,
    pub user_defined: [u8; 12],
    connection_id: u32,
}

impl Guest {
    /// A guest that has the offers of `controllers`.
    pub fn new(controllers: &[ScsiController]) -> (Self, Vec<ChannelKey>) {
        Self::with_devices(
            controllers.iter().map(|one| Box::new(one.clone()) as Box<dyn Device>).collect(),
        )
    }

    /// A guest that has the offers of any devices.
    pub fn with_devices(devices: Vec<Box<dyn Device>>) -> (Self, Vec<ChannelKey>) {
        let memory = PlainMemory::new(PAGES).unwrap();
        let synic = Arc::new(TestSynic::default());
        let bus = VmBus::new(memory.ram().clone(), synic.clone());
        let keys = devices.into_iter().map(|one| bus.offer(one).unwrap()).collect();
        let mut guest = Self {
            memory,
            bus,
            synic,
            offers: Vec::new(),
            next_page: FIRST_RING,
            next_gpadl: 1,
            inline: None,
        };
        guest.connect();
        (guest, keys)
    }

    fn connect(&mut self) {
        let contact = InitiateContact {
            version: U32::new(Version::V5_3.word()),
            target_vp: U32::ZERO,
            target_info: [2, 0, 0, 0, 0, 0, 0, 0],
            monitor_page1: U64::ZERO,
            monitor_page2: U64::ZERO,
        };
        self.post(&MessageBuffer::new(MessageType::InitiateContact, &contact));
        self.expect(MessageType::VersionResponse);
        self.post(&MessageBuffer::bare(MessageType::RequestOffers));
        self.expect(MessageType::AllOffersDelivered);
    }

    /// As [`Guest::new`], where `inline` serves the channels whenever the guest waits.
    pub fn inline(
        controllers: &[ScsiController],
        inline: &InlineWorkers,
    ) -> (Self, Vec<ChannelKey>) {
        let (mut guest, keys) = Self::new(controllers);
        guest.inline = Some(inline.clone());
        (guest, keys)
    }

    /// Puts a bus with other devices in the place of the old one, over the same memory: what
    /// another process begins with.
    pub fn replace_bus(&mut self, devices: Vec<Box<dyn Device>>) {
        self.synic.forget_doorbells();
        self.bus = VmBus::new(self.memory.ram().clone(), self.synic.clone());
        devices.into_iter().for_each(|one| {
            self.bus.offer(one).unwrap();
        });
    }

    /// The doorbell of an offer's channel as it is now.
    pub fn doorbell(&self, offer: GuestOffer) -> vmm_sys_util::eventfd::EventFd {
        self.synic.doorbell(offer.connection_id)
    }

    /// Opens the channel of an offer with rings of `pages` pages each.
    pub fn open(&mut self, offer: GuestOffer, pages: usize) -> GuestChannel {
        let first = self.next_page;
        self.next_page += 2 * pages;
        assert!(self.next_page <= DATA as usize, "no pages left for rings");
        self.open_at(offer, first, pages)
    }

    /// As [`Guest::open`], with rings at page `first`.
    pub fn open_at(&mut self, offer: GuestOffer, first: usize, pages: usize) -> GuestChannel {
        let map = |at| self.memory.ring_at(at, pages, Mode::Mirrored).unwrap();
        map(first).reset();
        map(first + pages).reset();
        let (upstream, downstream) = (map(first), map(first + pages));
        let gpadl = self.next_gpadl;
        self.next_gpadl += 1;
        self.create_gpadl(offer.relid, gpadl, first as u64, 2 * pages);
        let open = OpenChannel {
            relid: U32::new(offer.relid),
            open_id: U32::new(offer.relid),
            ring_gpadl: U32::new(gpadl),
            target_vp: U32::ZERO,
            downstream_page_offset: U32::new(pages as u32),
            user_data: [0; 120],
        };
        self.post(&MessageBuffer::new(MessageType::OpenChannel, &open));
        let result = self.expect(MessageType::OpenChannelResult);
        let (result, _) = OpenChannelResult::read_from_prefix(&result).unwrap();
        assert_eq!((result.relid.get(), result.status.get()), (offer.relid, 0));
        let mut incoming = Incoming::new(downstream).unwrap();
        incoming.unmask().unwrap();
        GuestChannel {
            relid: offer.relid,
            gpadl,
            first_page: first,
            incoming,
            outgoing: Outgoing::new(upstream).unwrap(),
            doorbell: self.synic.doorbell(offer.connection_id),
            synic: self.synic.clone(),
            memory: self.memory.ram().clone(),
            spoken: 0,
            inline: self.inline.clone(),
        }
    }

    /// Closes a channel and takes its memory back; returns when the host has let go of it.
    #[expect(clippy::needless_pass_by_value, reason = "a closed channel must not be used again")]
    pub fn close(&mut self, channel: GuestChannel) {
        let (relid, gpadl) = (channel.relid, channel.gpadl);
        self.post_close(relid);
        self.teardown(relid, gpadl);
    }

    pub fn post_close(&mut self, relid: u32) {
        self.post(&MessageBuffer::new(
            MessageType::CloseChannel,
            &ChannelOnly { relid: U32::new(relid) },
        ));
    }

    pub fn teardown(&mut self, relid: u32, gpadl: u32) {
        let teardown = GpadlTeardown { relid: U32::new(relid), gpadl: U32::new(gpadl) };
        self.post(&MessageBuffer::new(MessageType::GpadlTeardown, &teardown));
        self.expect(MessageType::GpadlTorndown);
    }

    /// Answers a rescinded offer, so that its relid is free.
    pub fn release(&mut self, relid: u32) {
        self.post(&MessageBuffer::new(
            MessageType::RelidReleased,
            &ChannelOnly { relid: U32::new(relid) },
        ));
    }

    /// Waits until `count` offers came in all.
    pub fn await_offers(&mut self, count: usize) {
        while self.offers.len() < count {
            let message = self.next_message();
            self.take(&message);
        }
    }

    /// The body of the next message of `kind`; offers that come before are kept.
    pub fn expect(&mut self, kind: MessageType) -> Vec<u8> {
        loop {
            let message = self.next_message();
            if self.take(&message) == kind {
                return message[8..].to_vec();
            }
        }
    }

    fn next_message(&self) -> Vec<u8> {
        if let Some(inline) = &self.inline {
            inline.serve();
        }
        self.synic.next_message()
    }

    fn take(&mut self, message: &[u8]) -> MessageType {
        let kind =
            MessageType::from_number(u32::from_le_bytes(message[..4].try_into().unwrap())).unwrap();
        if kind == MessageType::OfferChannel {
            let (offer, _) = OfferChannel::read_from_prefix(&message[8..]).unwrap();
            self.offers.push(GuestOffer {
                relid: offer.relid.get(),
                class: offer.class,
                instance: offer.instance,
                subchannel: offer.sub_channel_index.get(),
                flags: offer.flags.get(),
                user_defined: offer.user_defined[..12].try_into().unwrap(),
                connection_id: offer.connection_id.get(),
            });
        }
        kind
    }

    fn create_gpadl(&mut self, relid: u32, gpadl: u32, first: u64, pages: usize) {
        let mut list = Vec::new();
        list.extend_from_slice(&((pages * 4096) as u64).to_le_bytes());
        list.extend((first..first + pages as u64).flat_map(u64::to_le_bytes));
        let header = GpadlHeader {
            relid: U32::new(relid),
            gpadl: U32::new(gpadl),
            range_buflen: U16::new(list.len() as u16),
            range_count: U16::new(1),
        };
        let (now, later) = list.split_at(list.len().min(216));
        self.post(&MessageBuffer::with_data(MessageType::GpadlHeader, &header, now));
        for part in later.chunks(224) {
            let body = GpadlBody { message_number: U32::ZERO, gpadl: U32::new(gpadl) };
            self.post(&MessageBuffer::with_data(MessageType::GpadlBody, &body, part));
        }
        let created = self.expect(MessageType::GpadlCreated);
        let (created, _) = GpadlCreated::read_from_prefix(&created).unwrap();
        assert_eq!((created.gpadl.get(), created.status.get()), (gpadl, 0));
    }

    fn post(&self, message: &MessageBuffer) {
        assert_eq!(self.bus.post_message(PORT, 1, message.as_bytes()), HvStatus::Success);
    }
}
