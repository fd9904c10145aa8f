//! The guest's subchannels and receive-side scaling.

use std::sync::Arc;

use synthvm_net::Backend;
use synthvm_netvsp::NetworkCard;
use synthvm_netvsp::protocol::rss::{FlowHash, HashTypes, ToeplitzKey};
use vmbus_loopback::bare::{BareChannel, HostPacket};
use vmbus_ring::PacketKind;

use super::{NetGuest, SEND, frame, full, word, words};

/// Hashes of TCP and of addresses alone, for both versions of IP.
const HASH_TYPES: u32 = 0x1700;

impl NetGuest {
    /// Returns a guest that has initialised a card with `channels` channels, opened all of them,
    /// and spreads frames evenly over them.
    pub fn start_with_channels(backend: Arc<dyn Backend>, channels: u16) -> Self {
        let mut guest = Self::open_with_channels(backend, channels);
        guest.start_channels(channels);
        guest
    }

    /// Returns a guest of `card`, as [`NetGuest::start_with_channels`] does, with a thread for each
    /// channel.
    pub fn start_with_threads(card: NetworkCard, channels: u16) -> Self {
        let mut guest = Self::open_with_threads(card);
        guest.start_channels(channels);
        guest
    }

    /// Initialises the card, opens its channels, and receives all frames.
    pub fn start_channels(&mut self, channels: u16) {
        self.initialise();
        if channels > 1 {
            self.add_subchannels(channels - 1);
            self.spread(&(0..channels.into()).collect::<Vec<_>>());
        }
        self.set(0x0001_010E, &0x20_u32.to_le_bytes());
    }

    /// Asks for `count` subchannels, opens them, and takes the send indirection table.
    pub fn add_subchannels(&mut self, count: u16) {
        let answer = self.ask(&words(&[133, 1, count.into()]), &[]);
        assert_eq!([0, 4, 8].map(|at| word(&answer, at)), [133, 1, count.into()]);
        let first = self.guest.offers.len();
        self.guest.await_offers(first + usize::from(count));
        for number in 0..usize::from(count) {
            let offer = self.guest.offers[first + number];
            assert_eq!(usize::from(offer.subchannel), number + 1);
            self.subchannels.push(self.guest.open(offer, 8));
        }
        let table = self.send_table();
        let channels = u32::from(count) + 1;
        assert_eq!(table, (0..16).map(|entry| entry % channels).collect::<Vec<_>>());
    }

    /// Takes the send indirection table, the next packet on the primary channel.
    pub fn send_table(&mut self) -> Vec<u32> {
        let packet = self.channel.receive();
        assert_eq!((packet.kind, packet.transaction_id), (PacketKind::InBand, 0));
        let bytes = &packet.payload;
        assert_eq!([0, 4, 8].map(|at| word(bytes, at)), [134, 16, 40]);
        assert_eq!(bytes.len(), 104);
        (0..16).map(|entry| word(bytes, 40 + 4 * entry)).collect()
    }

    /// Sets the indirection table, with Microsoft's key.
    pub fn spread(&mut self, table: &[u32]) {
        let size = 4 * table.len() as u32;
        let mut data = vec![0x89, 2, 40, 0, 0, 0, 0, 0];
        data.extend(words(&[HASH_TYPES | 1, size, 40, 40, 40 + size, 0, 0, 0]));
        data.extend(words(table));
        data.extend(ToeplitzKey::MICROSOFT);
        self.set(0x0001_0204, &data);
    }

    /// Sets the checksum offloads (1: none, 2: to send, 3: to receive, 4: both), and coalescing (1:
    /// off, 2: on). The host confirms it by an indication.
    pub fn set_offloads(&mut self, checksums: u8, coalescing: u8) {
        let mut data = vec![0x80, 3, 28, 0];
        data.extend([checksums; 5]);
        data.extend([1, 1, 2, 2, 1, 1, 0]);
        data.extend([0; 4]);
        data.extend([0, 0, coalescing, coalescing, 0, 0, 0, 0]);
        self.set(0xFC01_020C, &data);
        let indication = self.channel.receive();
        assert_eq!(word(&self.content(&indication)[0], 8), 0x4002_0006);
        self.complete(&indication);
    }

    /// Returns channel `index`, 0 for the primary.
    pub fn channel(&mut self, index: usize) -> &mut BareChannel {
        match index.checked_sub(1) {
            None => &mut self.channel,
            Some(index) => &mut self.subchannels[index],
        }
    }

    /// Sends an RNDIS message on channel `index`. Returns the status of its completion.
    pub fn send_on(&mut self, index: usize, message: &[u8]) -> u32 {
        let id = 1000 + index as u64;
        let section = index as u32;
        self.channel.poke(SEND, u64::from(section) * 6144, message);
        let nvsp = full(&words(&[107, 0, section, message.len() as u32]));
        self.channel(index).send(id, &nvsp, &[]);
        loop {
            let packet = self.channel(index).receive();
            if packet.kind == PacketKind::Completion {
                assert_eq!(packet.transaction_id, id);
                return word(&packet.payload, 4);
            }
            self.early_on.push((index, packet));
        }
    }

    /// Takes all packets of frames that are in the ring of channel `index`, without completing
    /// them.
    pub fn take(&mut self, index: usize) -> Vec<HostPacket> {
        let (mut packets, others): (Vec<_>, _) =
            std::mem::take(&mut self.early_on).into_iter().partition(|(at, _)| *at == index);
        self.early_on = others;
        packets.extend(
            std::iter::from_fn(|| self.channel(index).try_receive()).map(|one| (index, one)),
        );
        packets.into_iter().map(|(_, packet)| packet).collect()
    }
}

/// Returns a TCP frame over IPv4 from a port.
pub fn flow(port: u16) -> Vec<u8> {
    let mut bytes = frame(port as u8, 80);
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14..34]
        .copy_from_slice(&[0x45, 0, 0, 66, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes[34..36].copy_from_slice(&port.to_be_bytes());
    bytes[36..38].copy_from_slice(&[0, 80]);
    bytes
}

/// Returns the hash of a frame, as the guest's driver would compute it.
pub fn hash(frame: &[u8]) -> u32 {
    let key = ToeplitzKey::default();
    FlowHash::of_frame(&key, HashTypes(HASH_TYPES), frame).unwrap().0
}
