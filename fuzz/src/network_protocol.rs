//! One network card: up to 64 messages of any bytes, frames of any bytes, and completions with any
//! transaction id. Decisions are compared with a naive reading, and the state is saved and restored
//! after each step.

use std::collections::BTreeMap;

use synthvm_netvsp::protocol::limits::MAX_CHANNELS;
use synthvm_netvsp::protocol::nvsp::{
    Capabilities, Completion, Effect, Gpadl, NvspStatus, Session, handle_subchannel,
};
use synthvm_netvsp::protocol::oid::{CardProperties, Connection, Directions, Link, Offloads};
use synthvm_netvsp::protocol::rndis::{Control, ControlOutcome, ReceiveHeader, ReceivedFrame};
use synthvm_netvsp::protocol::rss::FlowHash;
use synthvm_netvsp::protocol::sub_allocations::{Geometry, Owner, Partition, Share, SubAllocation};
use synthvm_netvsp::protocol::{FrameHeaders, MacAddress};

use crate::input::Input;
use crate::network_model;

const ADDRESS: MacAddress = MacAddress([0x00, 0x15, 0x5D, 1, 2, 3]);
const MAX_SUBCHANNELS: u16 = 7;
const MAX_STEPS: usize = 64;

/// The card and a model of its outstanding packets.
struct Card {
    session: Session,
    control: Control,
    shares: Option<Shares>,
}

struct Shares {
    geometry: Geometry,
    partition: Partition,
    share: Share,
    reserved: Vec<SubAllocation>,
    outstanding: BTreeMap<u64, u32>,
}

/// Layout: a byte of card options, then steps. Each step is an operation and its operands; see
/// [`step`]. The session ends at the first violation of the protocol.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let properties = properties(input.u8());
    let mut card = Card {
        session: Session::new(MAX_SUBCHANNELS),
        control: Control::new(properties, ADDRESS),
        shares: None,
    };
    for _ in 0..MAX_STEPS {
        if input.is_empty() || step(&mut card, &mut input).is_none() {
            break;
        }
        check_restore(&card);
    }
}

fn properties(options: u8) -> CardProperties {
    let bit = |number: u8| options & (1 << number) != 0;
    let directions = |number| Directions { transmit: bit(number), receive: bit(number + 1) };
    let offloads = Offloads {
        ipv4: directions(0),
        tcp4: directions(1),
        udp4: directions(2),
        tcp6: directions(3),
        udp6: directions(4),
        segment4: bit(0),
        segment6: bit(3),
        coalesce4: bit(6),
        coalesce6: bit(6),
    };
    CardProperties {
        address: ADDRESS,
        name: "fuzz".repeat(usize::from(options)),
        max_channels: MAX_SUBCHANNELS + 1,
        offloads,
        may_change_address: bit(7),
    }
}

/// Operations: an NVSP message; the mapping of a buffer; an RNDIS data message; a control message;
/// a frame to the guest; a packet of sub-allocations; a completion. `None`: the channel stops.
fn step(card: &mut Card, input: &mut Input<'_>) -> Option<()> {
    match input.u8() % 8 {
        0 => nvsp(card, input)?,
        1 => map(card, input),
        2 => network_model::check_transmit(input, card.session.max_frame()),
        3 => control(card, input),
        4 => receive(card, input),
        5 => send(card, input),
        6 => complete(card, input),
        _ => {
            let length = usize::from(input.u8());
            let _ = handle_subchannel(input.bytes(length));
        }
    }
    Some(())
}

fn nvsp(card: &mut Card, input: &mut Input<'_>) -> Option<()> {
    let length = usize::from(input.u8());
    let wants_completion = length & 1 == 0;
    let payload = input.bytes(length / 2);
    let before = card.session.clone();
    let Ok(outcome) = card.session.handle(payload, wants_completion) else {
        assert_eq!(card.session, before, "an error changed the session");
        return None;
    };
    let size = card.session.version().map_or(28, |version| version.message_size());
    match outcome.completion {
        Completion::None => {}
        Completion::Empty => assert!(wants_completion),
        Completion::Message(message) => {
            assert!(wants_completion);
            assert_eq!(message.bytes().len(), size);
        }
    }
    match outcome.effect {
        Effect::OfferSubchannels(count) => assert!(count <= MAX_SUBCHANNELS),
        Effect::Rndis(packet) => {
            assert!(card.session.receive_buffer().is_some());
            let section = packet.section.zip(card.session.send_buffer());
            if let Some((section, buffer)) = section {
                let end = u64::from(section.index) * 6144 + u64::from(section.size);
                let is_within = end <= u64::from(buffer.length());
                assert_eq!(buffer.locate(section).is_some(), is_within);
            }
        }
        Effect::ReceiveBufferRevoked => {
            assert!(card.session.receive_buffer().is_none());
            card.shares = None;
        }
        _ => {}
    }
    Some(())
}

/// Answers the requests to map buffers with a GPADL of any shape.
fn map(card: &mut Card, input: &mut Input<'_>) {
    let flags = input.u8();
    let gpadl = (flags & 1 == 0).then(|| Gpadl {
        ranges: 1 + usize::from(flags >> 1 & 1),
        byte_offset: u32::from(flags >> 2 & 1),
        length: u64::from(input.u32()) << (flags >> 3 & 7),
    });
    if flags & 0x80 != 0 {
        let (_, buffer) = card.session.complete_send_buffer(gpadl);
        assert!(buffer.is_none_or(|buffer| buffer.sections() >= 1));
        return;
    }
    let (_, geometry) = card.session.complete_receive_buffer(gpadl);
    let Some(geometry) = geometry else { return };
    let length = gpadl.expect("only a GPADL is accepted").length;
    assert!(u64::from(geometry.size()) * u64::from(geometry.count()) <= length);
    assert_eq!(geometry.end(), geometry.size() * geometry.count());
    let partition = Partition::new(geometry, 1 + u16::from(flags & 3));
    let share = Share::new(partition, Owner::Channel(0));
    card.shares = Some(Shares {
        geometry,
        partition,
        share,
        reserved: Vec::new(),
        outstanding: BTreeMap::new(),
    });
}

fn control(card: &mut Card, input: &mut Input<'_>) {
    let length = usize::from(input.u16() % 2048);
    let message = input.bytes(length);
    let link = Link { is_up: input.u8() & 1 == 0, speed: u64::from(input.u16()) << 28 };
    let before = card.control.clone();
    let connection = connection(&card.session);
    let outcome = card.control.handle(message, &connection, link);
    let ControlOutcome { status, answer, indication, .. } = outcome;
    for sent in [answer, indication].iter().flatten() {
        let length = u32::from_le_bytes(sent.bytes()[4..8].try_into().expect("4 bytes"));
        assert_eq!(length as usize, sent.bytes().len());
    }
    if status != NvspStatus::Success {
        assert_eq!(card.control, before);
        assert!(answer.is_none() && indication.is_none());
    }
    let settings = card.control.settings();
    let allowed = card.control.properties().offloads;
    assert_eq!(settings.offloads.and(allowed), settings.offloads);
    let table = settings.rss.table.entries();
    assert!(table.iter().all(|channel| *channel < connection.channels));
}

fn connection(session: &Session) -> Connection {
    Connection {
        max_frame: session.max_frame(),
        ndis_version: session.ndis_version(),
        channels: 1 + session.subchannels(),
        may_coalesce: session.capabilities().contains(Capabilities::RECEIVE_COALESCING),
    }
}

/// Filters and hashes a frame to the guest.
fn receive(card: &Card, input: &mut Input<'_>) {
    let length = usize::from(input.u8());
    let frame = input.bytes(length);
    let settings = card.control.settings();
    if let Some(destination) = frame.first_chunk() {
        let is_accepted = settings.filter.accepts(MacAddress(*destination));
        assert!(!is_accepted || settings.filter.kinds.0 != 0);
    }
    let hash = FlowHash::of_frame(&settings.rss.key, settings.rss.types, frame);
    assert_eq!(hash.map(|hash| hash.0), network_model::hash(&settings.rss, frame));
    assert!(hash.is_none() || FrameHeaders::parse(frame).is_some());
    assert!(settings.rss.table.channel(hash) < MAX_CHANNELS);
    let header = ReceiveHeader::new(&ReceivedFrame {
        length: frame.len() as u32,
        hash: hash.map(|hash| hash.0),
        ..ReceivedFrame::default()
    });
    assert!(header.bytes().len() <= ReceiveHeader::MAX);
}

fn send(card: &mut Card, input: &mut Input<'_>) {
    let Some(shares) = &mut card.shares else { return };
    let count = usize::from(input.u8() & 31);
    while shares.reserved.len() < count {
        let Some(sub_allocation) = shares.share.reserve() else { break };
        assert!(shares.geometry.offset(sub_allocation.index()).is_some());
        let owner = shares.partition.owner(sub_allocation.index());
        assert_eq!(owner, Some(Owner::Channel(0)));
        shares.reserved.push(sub_allocation);
    }
    // One more than is reserved, now and then: the packet must be refused as a whole.
    let mut packet = shares.reserved.clone();
    if input.u8() & 3 == 0 {
        packet.extend(packet.first().copied());
        assert!(shares.share.send(&packet).is_err());
        packet.pop();
    }
    match shares.share.send(&packet) {
        Ok(id) => {
            let previous = shares.outstanding.insert(id.word(), packet.len() as u32);
            assert_eq!(previous, None);
            assert_ne!(id.word(), 0);
            shares.reserved.clear();
        }
        Err(_) => assert!(packet.is_empty()),
    }
}

/// Completes an outstanding packet, or any number.
fn complete(card: &mut Card, input: &mut Input<'_>) {
    let Some(shares) = &mut card.shares else { return };
    let number = input.u64();
    let known = shares.outstanding.keys().nth((number >> 1) as usize).copied();
    let id = known.filter(|_| number & 1 == 0).unwrap_or(number);
    let freed = shares.share.complete(id).ok();
    assert_eq!(freed, shares.outstanding.remove(&id));
    assert_eq!(shares.share.packets() as usize, shares.outstanding.len());
}

fn check_restore(card: &Card) {
    let session = Session::restore(&card.session.save(), MAX_SUBCHANNELS);
    assert_eq!(session.as_ref(), Ok(&card.session));
    let channels = connection(&card.session).channels;
    let properties = card.control.properties().clone();
    let control = Control::restore(&card.control.save(), properties, channels);
    assert_eq!(control.as_ref(), Ok(&card.control));
    let Some(shares) = &card.shares else { return };
    if shares.outstanding.len() <= 4 {
        let saved = shares.share.save();
        assert!(saved.iter().map(|packet| &packet.transaction).eq(sorted_ids(shares).iter()));
        let restored = Share::restore(shares.partition, Owner::Channel(0), &saved);
        let free = restored.expect("saved by a share").available();
        assert_eq!(free, shares.share.available() + shares.reserved.len() as u32);
    }
}

/// Returns the outstanding transaction ids by their first sub-allocation.
fn sorted_ids(shares: &Shares) -> Vec<u64> {
    let mut ids: Vec<u64> = shares.outstanding.keys().copied().collect();
    ids.sort_unstable_by_key(|id| *id as u32);
    ids
}
