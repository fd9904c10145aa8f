//! A guest that writes messages and rings itself, without a client's checks: for tests and benches
//! of one device, which send packets that no client would, and count each signal.
//!
//! It talks to a real [`VmBus`] over plain memory in this process. A device's tests add the
//! device's own protocol by a trait for [`BareChannel`].
//!
//! ```
//! use vmbus_host::Offer;
//! use vmbus_loopback::{ManualDevice, bare::BareGuest};
//! use vmbus_protocol::{Guid, guid};
//!
//! let offer = Offer::new(guid::class::SCSI, Guid::default(), 0);
//! let (device, opened) = ManualDevice::new(offer);
//! let (mut guest, _) = BareGuest::new(vec![Box::new(device)]);
//! let mut channel = guest.open(guest.offers[0], 4);
//! channel.send(1, &[0; 16], &[]);
//! assert!(opened.take().is_some());
//! ```

mod channel;
mod synic;

use std::sync::Arc;

use vmbus_host::core::ChannelKey;
use vmbus_host::{Device, HvStatus, VmBus};
use vmbus_protocol::message::{
    ChannelOnly, GpadlBody, GpadlCreated, GpadlHeader, GpadlTeardown, InitiateContact, MessageType,
    OfferChannel, OpenChannel, OpenChannelResult,
};
use vmbus_protocol::{Guid, MessageBuffer, Version};
use vmbus_ring::{Incoming, Mode, Outgoing, PlainMemory};
use vmm_sys_util::eventfd::EventFd;
use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U32};

pub use channel::{BareChannel, GuestRange, HostPacket};
pub use synic::CountingSynic;

/// First page for data. Rings are taken from the pages before it.
pub const DATA: u64 = 1024;

/// Pages of RAM: 16 MiB.
const PAGES: usize = 4096;
/// First page for rings.
const FIRST_RING: usize = 16;
/// The connection id to which guests post messages (docs/spec/vmbus-core.md section 2).
const PORT: u32 = 4;

/// Runs the workers of all channels, in place of their threads.
pub type Serve = Arc<dyn Fn() + Send + Sync>;

/// The guest, and the bus of the machine on which it runs. It has four VPs and speaks version 5.3.
///
/// Every call panics if the host answers with an error or not at all within a minute: for a test,
/// each of these is a failure.
#[non_exhaustive]
pub struct BareGuest {
    /// Guest memory.
    pub memory: PlainMemory,
    /// The bus with the devices.
    pub bus: VmBus,
    /// The offers that have arrived, in their order.
    pub offers: Vec<GuestOffer>,
    /// Serves the channels while the guest waits. `None`: the devices' threads do.
    pub serve: Option<Serve>,
    synic: Arc<CountingSynic>,
    next_page: usize,
    next_gpadl: u32,
}

/// An offer as the guest got it (docs/spec/vmbus-core.md section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuestOffer {
    /// The channel's number.
    pub relid: u32,
    /// The device's class.
    pub class: Guid,
    /// The device's instance.
    pub instance: Guid,
    /// 0 for a primary channel.
    pub subchannel: u16,
    /// Channel flags.
    pub flags: u16,
    /// The first bytes of the user-defined area.
    pub user_defined: [u8; 12],
    connection_id: u32,
}

impl BareGuest {
    /// Returns a guest that has connected and received the offers of `devices`, and the keys of
    /// their channels.
    #[must_use]
    pub fn new(devices: Vec<Box<dyn Device>>) -> (Self, Vec<ChannelKey>) {
        let memory = PlainMemory::new(PAGES).unwrap();
        let synic = Arc::new(CountingSynic::default());
        let bus = VmBus::new(memory.ram().clone(), synic.clone());
        let keys = devices.into_iter().map(|one| bus.offer(one).unwrap()).collect();
        let mut guest = Self {
            memory,
            bus,
            offers: Vec::new(),
            serve: None,
            synic,
            next_page: FIRST_RING,
            next_gpadl: 1,
        };
        guest.connect();
        (guest, keys)
    }

    /// Replaces the bus by one with `devices` over the same memory, as in another process that
    /// restores the machine.
    pub fn replace_bus(&mut self, devices: Vec<Box<dyn Device>>) {
        self.synic.forget_doorbells();
        self.bus = VmBus::new(self.memory.ram().clone(), self.synic.clone());
        for device in devices {
            self.bus.offer(device).unwrap();
        }
    }

    /// Returns the doorbell of the channel of `offer`.
    #[must_use]
    pub fn doorbell(&self, offer: GuestOffer) -> EventFd {
        self.synic.doorbell(offer.connection_id)
    }

    /// Opens the channel of `offer` with rings of `pages` pages each, their control pages included.
    #[must_use]
    pub fn open(&mut self, offer: GuestOffer, pages: usize) -> BareChannel {
        let first = self.next_page;
        self.next_page += 2 * pages;
        assert!(self.next_page <= DATA as usize, "no pages left for rings");
        self.open_at(offer, first, pages)
    }

    /// Opens the channel of `offer` with rings at page `first`.
    #[must_use]
    pub fn open_at(&mut self, offer: GuestOffer, first: usize, pages: usize) -> BareChannel {
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
        BareChannel {
            relid: offer.relid,
            gpadl,
            first_page: first,
            incoming,
            outgoing: Outgoing::new(upstream).unwrap(),
            doorbell: self.synic.doorbell(offer.connection_id),
            synic: self.synic.clone(),
            memory: self.memory.ram().clone(),
            events_seen: 0,
            serve: self.serve.clone(),
        }
    }

    /// Closes a channel, tears its GPADL down, and returns when the host has released the memory.
    #[expect(clippy::needless_pass_by_value, reason = "a closed channel must not be used again")]
    pub fn close(&mut self, channel: BareChannel) {
        let (relid, gpadl) = (channel.relid, channel.gpadl);
        self.post_close(relid);
        self.teardown(relid, gpadl);
    }

    /// Posts CLOSE_CHANNEL.
    pub fn post_close(&mut self, relid: u32) {
        let close = ChannelOnly { relid: U32::new(relid) };
        self.post(&MessageBuffer::new(MessageType::CloseChannel, &close));
    }

    /// Tears a GPADL down and waits for the answer.
    pub fn teardown(&mut self, relid: u32, gpadl: u32) {
        let teardown = GpadlTeardown { relid: U32::new(relid), gpadl: U32::new(gpadl) };
        self.post(&MessageBuffer::new(MessageType::GpadlTeardown, &teardown));
        self.expect(MessageType::GpadlTorndown);
    }

    /// Answers a rescinded offer, so that its relid is free.
    pub fn release(&mut self, relid: u32) {
        let released = ChannelOnly { relid: U32::new(relid) };
        self.post(&MessageBuffer::new(MessageType::RelidReleased, &released));
    }

    /// Creates a GPADL over `pages` pages from page `first` on, and waits until it is accepted.
    pub fn create_gpadl(&mut self, relid: u32, gpadl: u32, first: u64, pages: usize) {
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

    /// Waits until `count` offers have arrived in all.
    pub fn await_offers(&mut self, count: usize) {
        while self.offers.len() < count {
            let message = self.next_message();
            self.take(&message);
        }
    }

    /// Returns the body of the next message of `kind`. Offers that come before it are kept, other
    /// messages are dropped.
    pub fn expect(&mut self, kind: MessageType) -> Vec<u8> {
        loop {
            let message = self.next_message();
            if self.take(&message) == kind {
                return message[8..].to_vec();
            }
        }
    }

    /// Connects again, as the guest of a machine that was reset.
    pub fn reconnect(&mut self) {
        self.connect();
    }

    fn connect(&mut self) {
        let contact = InitiateContact::new(Version::V5_3.word(), 0);
        self.post(&MessageBuffer::new(MessageType::InitiateContact, &contact));
        self.expect(MessageType::VersionResponse);
        self.post(&MessageBuffer::bare(MessageType::RequestOffers));
        self.expect(MessageType::AllOffersDelivered);
    }

    fn next_message(&self) -> Vec<u8> {
        if let Some(serve) = &self.serve {
            serve();
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

    fn post(&self, message: &MessageBuffer) {
        assert_eq!(self.bus.post_message(PORT, 1, message.as_bytes()), HvStatus::Success);
    }
}
