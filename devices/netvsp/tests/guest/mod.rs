//! The loopback's bare guest, whose driver speaks NVSP and RNDIS as Linux does.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

pub mod queues;

use std::collections::VecDeque;
use std::sync::Arc;

use synthvm_net::Backend;
use synthvm_netvsp::protocol::MacAddress;
use synthvm_netvsp::{CardOptions, NetworkCard};
use vmbus_device::{InlineWorkers, WorkerOptions};
use vmbus_loopback::bare::{BareChannel, BareGuest, GuestOffer, GuestRange, HostPacket};
use vmbus_protocol::Guid;
use vmbus_ring::{OutPacket, PacketKind};

pub const ADDRESS: MacAddress = MacAddress([0x00, 0x15, 0x5D, 1, 2, 3]);

/// Pages of the receive buffer, of the send buffer, and of requests.
pub const RECEIVE: u64 = 2048;
pub const RECEIVE_PAGES: usize = 64;
pub const SEND: u64 = 2200;
pub const SEND_PAGES: usize = 16;
pub const REQUEST: u64 = 2300;

/// Pages of each ring of a channel.
pub const RING_PAGES: usize = 8;

/// The guest's number for the receive buffer.
pub const SET: u16 = 0xCAFE;
/// Bytes of a sub-allocation: 256 for headers, 1,514, and 36 that Windows overwrites.
pub const SUB_ALLOCATION: u32 = 1808;
pub const NO_SECTION: u32 = u32::MAX;

pub struct NetGuest {
    pub guest: BareGuest,
    pub channel: BareChannel,
    pub subchannels: Vec<BareChannel>,
    pub inline: InlineWorkers,
    /// The version of NDIS that it has.
    pub ndis_version: [u32; 2],
    /// Its capabilities in NDIS_CONFIG.
    pub capabilities: u32,
    pub buffers: Buffers,
    last_id: u64,
    /// Packets that came before a completion.
    early: VecDeque<HostPacket>,
    /// Those of [`NetGuest::send_on`], with their channels.
    early_on: Vec<(usize, HostPacket)>,
}

/// The buffers that a guest shares with its card, from page [`RECEIVE`] and page [`SEND`] on.
#[derive(Clone, Copy)]
pub struct Buffers {
    /// The GPADL of the receive buffer. The next one is the send buffer's.
    pub first_gpadl: u32,
    pub receive_pages: usize,
    pub send_pages: usize,
}

/// A frame, and the tag beside it.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub bytes: Vec<u8>,
    /// The words of its per-packet information, by kind.
    pub info: Vec<(u32, u32)>,
}

impl NetGuest {
    /// Returns a guest with an open channel to a card over `backend`, and nothing negotiated.
    pub fn open(backend: Arc<dyn Backend>) -> Self {
        let inline = InlineWorkers::default();
        let card = NetworkCard::new(options(&inline), backend);
        Self::open_card(card, inline)
    }

    /// Returns a guest with an open channel to a card of up to `channels` channels.
    pub fn open_with_channels(backend: Arc<dyn Backend>, channels: u16) -> Self {
        let inline = InlineWorkers::default();
        let card = NetworkCard::with_channels(options(&inline), backend, channels);
        Self::open_card(card, inline)
    }

    /// Returns a guest with an open channel to `card`, which `inline` serves.
    pub fn open_card(card: NetworkCard, inline: InlineWorkers) -> Self {
        let (mut guest, _) = BareGuest::new(vec![Box::new(card)]);
        let serve = inline.clone();
        guest.serve = Some(Arc::new(move || serve.serve()));
        let offer = guest.offers[0];
        Self::again(guest, offer, inline)
    }

    /// Returns a guest with an open channel to `card`, which threads serve.
    pub fn open_with_threads(card: NetworkCard) -> Self {
        let (guest, _) = BareGuest::new(vec![Box::new(card)]);
        let offer = guest.offers[0];
        Self::again(guest, offer, InlineWorkers::default())
    }

    /// Returns a guest that has initialised the card, with all frames in its filter.
    pub fn start(backend: Arc<dyn Backend>) -> Self {
        let mut guest = Self::open(backend);
        guest.initialise();
        guest.set(0x0001_010E, &0x20_u32.to_le_bytes());
        guest
    }

    /// Opens the channel of `offer` again.
    pub fn again(mut guest: BareGuest, offer: GuestOffer, inline: InlineWorkers) -> Self {
        let channel = guest.open(offer, RING_PAGES);
        Self::with_channel(guest, channel, inline)
    }

    /// Closes the channel and its subchannels, and revokes all memory.
    pub fn close(self) -> (BareGuest, InlineWorkers) {
        let Self { mut guest, channel, subchannels, buffers, inline, .. } = self;
        guest.post_close(channel.relid);
        for subchannel in subchannels {
            guest.post_close(subchannel.relid);
            guest.teardown(subchannel.relid, subchannel.gpadl);
            guest.release(subchannel.relid);
        }
        for gpadl in [buffers.first_gpadl, buffers.first_gpadl + 1, channel.gpadl] {
            guest.teardown(channel.relid, gpadl);
        }
        (guest, inline)
    }

    /// As [`NetGuest::close`], and opens the channel again with its rings at page `first`.
    pub fn reopen(self, first: usize) -> Self {
        let (mut guest, inline) = self.close();
        let channel = guest.open_at(guest.offers[0], first, RING_PAGES);
        Self::with_channel(guest, channel, inline)
    }

    fn with_channel(guest: BareGuest, channel: BareChannel, inline: InlineWorkers) -> Self {
        let (subchannels, buffers) = (Vec::new(), Buffers::default());
        let (early, early_on) = (VecDeque::new(), Vec::new());
        Self {
            guest,
            channel,
            subchannels,
            inline,
            ndis_version: [6, 0x1E],
            capabilities: 1 << 3,
            buffers,
            last_id: 0,
            early,
            early_on,
        }
    }

    /// Negotiates version 6.1 and shares both buffers.
    pub fn initialise(&mut self) {
        let init = self.ask(&words(&[1, 0x60001, 0x60001]), &[]);
        assert_eq!(word(&init, 12), 1, "INIT");
        let config = words(&[125, 1514, 0, self.capabilities, 0]);
        self.tell(&config);
        let [major, minor] = self.ndis_version;
        self.tell(&words(&[100, major, minor]));
        let relid = self.channel.relid;
        let Buffers { first_gpadl, receive_pages, send_pages } = self.buffers;
        self.guest.create_gpadl(relid, first_gpadl, RECEIVE, receive_pages);
        let receive = self.ask(&words(&[101, first_gpadl, u32::from(SET)]), &[]);
        assert_eq!([4, 8, 12, 16].map(|at| word(&receive, at)), [1, 1, 0, SUB_ALLOCATION]);
        self.guest.create_gpadl(relid, first_gpadl + 1, SEND, send_pages);
        let send = self.ask(&words(&[104, first_gpadl + 1, 0]), &[]);
        assert_eq!((word(&send, 4), word(&send, 8)), (1, 6144));
        let answer = self.control(&words(&[2, 24, 7, 1, 0, 0x4000]));
        assert_eq!((word(&answer, 0), word(&answer, 12)), (0x8000_0002, 0), "INITIALIZE");
    }

    /// Sends an NVSP message and returns the payload of its completion.
    pub fn ask(&mut self, message: &[u8], memory: &[GuestRange]) -> Vec<u8> {
        let id = self.id();
        self.channel.send(id, &full(message), memory);
        loop {
            let packet = self.channel.receive();
            if packet.kind == PacketKind::Completion {
                assert_eq!(packet.transaction_id, id);
                return packet.payload;
            }
            self.early.push_back(packet);
        }
    }

    /// Sends an NVSP message that requests no completion.
    pub fn tell(&mut self, message: &[u8]) {
        let id = self.id();
        let payload = full(message);
        assert!(self.channel.try_write(&OutPacket::in_band(id, &[&payload])));
        self.inline.serve();
    }

    /// Sends a control message and returns the answer, which it completes.
    pub fn control(&mut self, message: &[u8]) -> Vec<u8> {
        let completion = self.send_control(message);
        assert_eq!((word(&completion, 0), word(&completion, 4)), (108, 1));
        let packet = self.next(1);
        let bytes = self.content(&packet).remove(0);
        self.complete(&packet);
        bytes
    }

    /// Sends a control message and returns the payload of its completion.
    pub fn send_control(&mut self, message: &[u8]) -> Vec<u8> {
        self.channel.poke(REQUEST, 0, message);
        let memory = [GuestRange::at(REQUEST, message.len() as u32)];
        self.ask(&words(&[107, 1, NO_SECTION, 0]), &memory)
    }

    /// Queries an OID. Returns the status and the information.
    pub fn query(&mut self, oid: u32) -> (u32, Vec<u8>) {
        let answer = self.control(&words(&[4, 28, 9, oid, 0, 20, 0]));
        let length = word(&answer, 16) as usize;
        let offset = word(&answer, 20) as usize + 8;
        (word(&answer, 12), answer[offset..offset + length].to_vec())
    }

    /// Sets an OID, which must succeed.
    pub fn set(&mut self, oid: u32, data: &[u8]) {
        let header = words(&[5, 28 + data.len() as u32, 9, oid, data.len() as u32, 20, 0]);
        let answer = self.control(&[&header, data].concat());
        assert_eq!((word(&answer, 0), word(&answer, 12)), (0x8000_0005, 0), "OID {oid:#x}");
    }

    /// Sends an RNDIS message in section 0 and returns the status of its completion.
    pub fn send_in_section(&mut self, message: &[u8]) -> u32 {
        self.channel.poke(SEND, 0, message);
        let completion = self.ask(&words(&[107, 0, 0, message.len() as u32]), &[]);
        word(&completion, 4)
    }

    /// Sends an RNDIS message in pages of its own and returns the status of its completion.
    pub fn send_large(&mut self, message: &[u8]) -> u32 {
        self.channel.poke(REQUEST, 0, message);
        let memory = [GuestRange::at(REQUEST, message.len() as u32)];
        word(&self.ask(&words(&[107, 0, NO_SECTION, 0]), &memory), 4)
    }

    /// Takes a packet of frames and completes it.
    pub fn receive(&mut self) -> Vec<Frame> {
        let packet = self.next(0);
        let frames = self.frames(&packet);
        self.complete(&packet);
        frames
    }

    /// Returns the frames of a packet.
    pub fn frames(&self, packet: &HostPacket) -> Vec<Frame> {
        assert_eq!(word(&packet.payload, 4), 0, "no packet with frames");
        self.content(packet).iter().map(|bytes| Frame::parse(bytes)).collect()
    }

    /// Completes a packet of the host.
    pub fn complete(&mut self, packet: &HostPacket) {
        complete_on(&mut self.channel, packet);
    }

    /// Returns the bytes of each range of a packet.
    pub fn content(&self, packet: &HostPacket) -> Vec<Vec<u8>> {
        assert_eq!(packet.kind, PacketKind::TransferPages);
        assert_eq!((packet.payload.len(), word(&packet.payload, 0)), (40, 107));
        let (set, ranges) = packet.transfer.as_ref().unwrap();
        assert_eq!(*set, SET);
        let size = SUB_ALLOCATION;
        let bytes = |range: &vmbus_ring::TransferRange| {
            assert_eq!(range.byte_offset % size, 0, "{range:?}");
            assert!(range.byte_count <= size - 36, "{range:?}");
            self.channel.peek(RECEIVE, range.byte_offset.into(), range.byte_count as usize)
        };
        ranges.iter().map(bytes).collect()
    }

    /// Returns the next packet of this channel type: 0 frames, 1 control messages.
    fn next(&mut self, kind: u32) -> HostPacket {
        let early = self.early.iter().position(|packet| word(&packet.payload, 4) == kind);
        if let Some(packet) = early.and_then(|at| self.early.remove(at)) {
            return packet;
        }
        loop {
            let packet = self.channel.receive();
            if word(&packet.payload, 4) == kind {
                return packet;
            }
            self.early.push_back(packet);
        }
    }

    /// Returns the packets that came before a completion.
    pub fn take_early(&mut self) -> Vec<HostPacket> {
        self.early.drain(..).collect()
    }

    fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

/// Completes a packet of the host on `channel`.
pub fn complete_on(channel: &mut BareChannel, packet: &HostPacket) {
    let payload = full(&words(&[108, 1]));
    let payload = [&payload[..]];
    assert!(channel.try_write(&OutPacket::completion(packet.transaction_id, &payload)));
}

/// Returns a card of up to `channels` channels, each with a thread.
pub fn threaded_card(backend: Arc<dyn Backend>, channels: u16) -> NetworkCard {
    let mut options = options(&InlineWorkers::default());
    options.workers.inline = None;
    NetworkCard::with_channels(options, backend, channels)
}

/// Returns the options of a card that `inline` serves.
pub fn options(inline: &InlineWorkers) -> CardOptions {
    CardOptions {
        instance: Guid::default(),
        address: ADDRESS,
        name: String::new(),
        workers: WorkerOptions::default().inline(inline.clone()),
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self { first_gpadl: 100, receive_pages: RECEIVE_PAGES, send_pages: SEND_PAGES }
    }
}

impl Frame {
    fn parse(message: &[u8]) -> Self {
        assert_eq!((word(message, 0), word(message, 4)), (1, message.len() as u32));
        let start = word(message, 8) as usize + 8;
        let bytes = message[start..start + word(message, 12) as usize].to_vec();
        let (mut at, mut left) = (word(message, 28) as usize + 8, word(message, 32) as usize);
        let mut info = Vec::new();
        while left != 0 {
            let size = word(message, at) as usize;
            let offset = word(message, at + 8) as usize;
            info.push((word(message, at + 4), word(message, at + offset)));
            at += size;
            left -= size;
        }
        Self { bytes, info }
    }
}

/// Returns an RNDIS packet with `frame` and information of one word each.
pub fn packet(frame: &[u8], info: &[(u32, u32)]) -> Vec<u8> {
    let items: Vec<u8> =
        info.iter().flat_map(|&(kind, word)| words(&[16, kind, 12, word])).collect();
    let length = 44 + items.len() + frame.len();
    let header = [
        1,
        length as u32,
        36 + items.len() as u32,
        frame.len() as u32,
        0,
        0,
        0,
        if items.is_empty() { 0 } else { 36 },
        items.len() as u32,
        0,
        0,
    ];
    [&words(&header)[..], &items, frame].concat()
}

/// Returns a frame of `length` bytes from one station to another.
pub fn frame(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|at| (at as u8).wrapping_mul(7) ^ seed).collect();
    bytes[..14].copy_from_slice(&[0, 0x15, 0x5D, 1, 2, 3, 2, 0, 0, 0, 0, seed, 0x88, 0xB5]);
    bytes
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Pads a message to the size of version 6.1.
pub fn full(message: &[u8]) -> Vec<u8> {
    let mut full = message.to_vec();
    full.resize(40, 0);
    full
}
