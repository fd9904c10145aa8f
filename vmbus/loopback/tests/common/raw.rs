//! A guest that sends raw messages and has raw rings, so that it can send messages that a correct
//! client would not.

use vm_memory::{Bytes, GuestAddress};
use vmbus_host::Channel;
use vmbus_host::core::ChannelKey;
use vmbus_loopback::{
    Config, Layout, LoopbackRings, LoopbackVm, Mode, OpenedChannels, attach_rings,
};
use vmbus_protocol::message::{
    ChannelOnly, GpadlBody, GpadlCreated, GpadlHeader, GpadlTeardown, GpadlTorndown,
    InitiateContact, MessageType, OfferChannel, OpenChannel, OpenChannelResult,
};
use vmbus_protocol::{MessageBuffer, Version};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::offer;

/// (byte offset, byte count, pages)
pub type RawRange<'a> = (u32, u32, &'a [u64]);

pub struct RawGuest {
    pub vm: LoopbackVm,
    pub opened: Vec<OpenedChannels>,
    pub keys: Vec<ChannelKey>,
    pub offers: Vec<OfferChannel>,
}

/// Both ends of a channel that a raw guest opened.
pub struct RawChannel {
    pub relid: u32,
    pub connection_id: u32,
    pub ring_gpadl: u32,
    pub pages: Vec<u64>,
    pub downstream_page: usize,
    pub rings: LoopbackRings,
    pub host: Channel,
}

/// A message from the host, by type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromHost {
    /// (relid, gpadl, status)
    Created(u32, u32, u32),
    Torndown(u32),
    /// (relid, open id, status)
    Opened(u32, u32, u32),
    Rescind(u32),
    Other(MessageType),
}

impl RawGuest {
    /// Returns a guest that is connected at 5.3, with `devices` manual devices offered.
    pub fn new(devices: u8) -> Self {
        Self::in_vm(LoopbackVm::with_config(Config::new(Mode::Stepped)).unwrap(), devices)
    }

    pub fn in_vm(vm: LoopbackVm, devices: u8) -> Self {
        let manual: Vec<_> =
            (0..devices).map(|number| vm.offer_manual(offer(number)).unwrap()).collect();
        let (keys, opened) = manual.into_iter().unzip();
        let mut guest = Self { vm, opened, keys, offers: Vec::new() };
        guest.contact();
        guest
    }

    /// Sends INITIATE_CONTACT and REQUESTOFFERS. All messages but the offers are dropped.
    pub fn contact(&mut self) {
        let contact = InitiateContact::new(Version::V5_3.word(), 0);
        self.post(MessageType::InitiateContact, &contact);
        self.post(MessageType::RequestOffers, &());
        let mut offers = Vec::new();
        while let Some(message) = self.vm.synic().take_any_message() {
            let bytes = message.as_bytes();
            if bytes[0] == 1 {
                offers.push(*OfferChannel::ref_from_prefix(&bytes[8..]).unwrap().0);
            }
        }
        self.offers = offers;
    }

    pub fn post<T: IntoBytes + Immutable>(&self, kind: MessageType, body: &T) {
        self.post_buffer(&MessageBuffer::new(kind, body));
    }

    pub fn post_buffer(&self, message: &MessageBuffer) {
        let status = self.vm.post_message(4, message.as_bytes());
        assert_eq!(status, vmbus_host::HvStatus::Success);
    }

    /// Returns the host's messages since the last call.
    pub fn heard(&self) -> Vec<FromHost> {
        std::iter::from_fn(|| self.vm.synic().take_any_message())
            .map(|message| parse(message.as_bytes()))
            .collect()
    }

    pub fn relid(&self, device: usize) -> u32 {
        self.offers[device].relid.get()
    }

    pub fn header(&self, relid: u32, id: u32, buflen: u16, ranges: u16, words: &[u64]) {
        let header = GpadlHeader {
            relid: U32::new(relid),
            gpadl: U32::new(id),
            range_buflen: U16::new(buflen),
            range_count: U16::new(ranges),
        };
        self.post_buffer(&MessageBuffer::with_data(
            MessageType::GpadlHeader,
            &header,
            words.as_bytes(),
        ));
    }

    pub fn body(&self, id: u32, words: &[u64]) {
        let body = GpadlBody { message_number: U32::ZERO, gpadl: U32::new(id) };
        self.post_buffer(&MessageBuffer::with_data(
            MessageType::GpadlBody,
            &body,
            words.as_bytes(),
        ));
    }

    /// Sends header and bodies for these ranges.
    pub fn describe(&self, relid: u32, id: u32, ranges: &[RawRange<'_>]) {
        let words = range_words(ranges);
        let (first, rest) = words.split_at(words.len().min(27));
        self.header(relid, id, (words.len() * 8) as u16, ranges.len() as u16, first);
        for part in rest.chunks(28) {
            self.body(id, part);
        }
    }

    pub fn tear_down(&self, relid: u32, id: u32) {
        let body = GpadlTeardown { relid: U32::new(relid), gpadl: U32::new(id) };
        self.post(MessageType::GpadlTeardown, &body);
    }

    pub fn close(&self, relid: u32) {
        self.post(MessageType::CloseChannel, &ChannelOnly { relid: U32::new(relid) });
    }

    /// Describes new ring pages and requests the open, without taking the host's answer.
    pub fn ask_open(&self, device: usize, ring_gpadl: u32) -> (Vec<u64>, LoopbackRings) {
        let (relid, pages) =
            (self.relid(device), self.vm.pages().allocate(8, Layout::Scattered).unwrap());
        let rings = attach_rings(self.vm.ram(), &pages, 4).unwrap();
        self.describe(relid, ring_gpadl, &[(0, 8 * 4096, &pages)]);
        let open = OpenChannel {
            relid: U32::new(relid),
            open_id: U32::new(relid),
            ring_gpadl: U32::new(ring_gpadl),
            target_vp: U32::ZERO,
            downstream_page_offset: U32::new(4),
            user_data: [0; 120],
        };
        self.post(MessageType::OpenChannel, &open);
        (pages, rings)
    }

    /// Opens device number `device` with a ring GPADL of that id: 4 pages in each direction.
    pub fn open(&self, device: usize, ring_gpadl: u32) -> RawChannel {
        let relid = self.relid(device);
        let (pages, rings) = self.ask_open(device, ring_gpadl);
        assert_eq!(
            self.heard(),
            [FromHost::Created(relid, ring_gpadl, 0), FromHost::Opened(relid, relid, 0)]
        );
        let host = self.opened[device].take().unwrap();
        let connection_id = self.offers[device].connection_id.get();
        RawChannel { relid, connection_id, ring_gpadl, pages, downstream_page: 4, rings, host }
    }

    pub fn read(&self, page: u64, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.vm.ram().memory().read_slice(&mut bytes, GuestAddress(page * 4096 + offset)).unwrap();
        bytes
    }

    pub fn write(&self, page: u64, offset: u64, bytes: &[u8]) {
        self.vm.ram().memory().write_slice(bytes, GuestAddress(page * 4096 + offset)).unwrap();
    }
}

pub fn range_words(ranges: &[RawRange<'_>]) -> Vec<u64> {
    ranges
        .iter()
        .flat_map(|&(offset, count, pages)| {
            std::iter::once(u64::from(offset) << 32 | u64::from(count)).chain(pages.iter().copied())
        })
        .collect()
}

fn parse(bytes: &[u8]) -> FromHost {
    fn body<T: FromBytes + KnownLayout + Immutable + Unaligned>(bytes: &[u8]) -> &T {
        T::ref_from_prefix(&bytes[8..]).unwrap().0
    }
    let number = u32::from_le_bytes(bytes[..4].try_into().unwrap());
    match MessageType::from_number(number).unwrap() {
        MessageType::GpadlCreated => {
            let body: &GpadlCreated = body(bytes);
            FromHost::Created(body.relid.get(), body.gpadl.get(), body.status.get())
        }
        MessageType::GpadlTorndown => FromHost::Torndown(body::<GpadlTorndown>(bytes).gpadl.get()),
        MessageType::OpenChannelResult => {
            let body: &OpenChannelResult = body(bytes);
            FromHost::Opened(body.relid.get(), body.open_id.get(), body.status.get())
        }
        MessageType::RescindChannelOffer => {
            FromHost::Rescind(body::<ChannelOnly>(bytes).relid.get())
        }
        other => FromHost::Other(other),
    }
}
