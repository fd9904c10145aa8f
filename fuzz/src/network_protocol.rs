//! One network card: up to 64 messages of any bytes, frames of any bytes, and completions with any
//! transaction id. Decisions are compared with a naive reading, and the state is saved and restored
//! after each step.

use synthvm_netvsp::protocol::limits::MAX_CHANNELS;
use synthvm_netvsp::protocol::nvsp::{
    Capabilities, ChannelType, Completion, Effect, Gpadl, NvspStatus, Session, handle_subchannel,
};
use synthvm_netvsp::protocol::oid::{
    CardProperties, Connection, Directions, Link, Offloads, Statistics,
};
use synthvm_netvsp::protocol::rndis::{Control, ControlOutcome, ReceiveHeader, ReceivedFrame};
use synthvm_netvsp::protocol::rss::FlowHash;
use synthvm_netvsp::protocol::{FrameHeaders, MacAddress};

use crate::input::Input;
use crate::network_model;
use crate::network_shares::Shares;

const ADDRESS: MacAddress = MacAddress([0x00, 0x15, 0x5D, 1, 2, 3]);
const MAX_SUBCHANNELS: u16 = 7;
const MAX_STEPS: usize = 64;

/// The card and its receive buffer.
struct Card {
    session: Session,
    control: Control,
    shares: Option<Shares>,
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
        5 => card.shares.iter_mut().for_each(|shares| shares.send(input)),
        6 => card.shares.iter_mut().for_each(|shares| shares.complete(input)),
        _ => subchannel(card, input),
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
    card.shares = Some(Shares::new(geometry, 1 + u16::from(flags >> 4 & 7)));
}

/// A message of a subchannel: data is located as on the primary channel, all else is refused.
fn subchannel(card: &mut Card, input: &mut Input<'_>) {
    // New subchannels get their part of the receive buffer once all channels are idle.
    let channels = connection(&card.session).channels;
    card.shares.iter_mut().for_each(|shares| shares.try_divide(channels));
    let length = usize::from(input.u8());
    let payload = input.bytes(length);
    let word = |at: usize| Some(u32::from_le_bytes(*payload.get(at..)?.first_chunk()?));
    let is_rndis = word(0) == Some(107) && word(12).is_some();
    match handle_subchannel(payload) {
        Err(_) => assert!(!is_rndis),
        Ok(None) => assert!(is_rndis && word(4) != Some(0)),
        Ok(Some(packet)) => {
            assert!(is_rndis && packet.channel_type == ChannelType::Data);
            assert_eq!(packet.section.is_none(), word(8) == Some(u32::MAX));
            if let Some((section, buffer)) = packet.section.zip(card.session.send_buffer()) {
                let end = u64::from(section.index) * 6144 + u64::from(section.size);
                let is_within = end <= u64::from(buffer.length());
                assert_eq!(buffer.locate(section).is_some(), is_within);
            }
        }
    }
}

fn control(card: &mut Card, input: &mut Input<'_>) {
    let length = usize::from(input.u16() % 2048);
    let message = input.bytes(length);
    let link = Link { is_up: input.u8() & 1 == 0, speed: u64::from(input.u16()) << 28 };
    let before = card.control.clone();
    let connection = connection(&card.session);
    let statistics = Statistics { send_errors: u64::MAX, ..Statistics::default() };
    let outcome = card.control.handle(message, &connection, link, &statistics);
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

fn check_restore(card: &Card) {
    let session = Session::restore(&card.session.save(), MAX_SUBCHANNELS);
    assert_eq!(session.as_ref(), Ok(&card.session));
    let channels = connection(&card.session).channels;
    let properties = card.control.properties().clone();
    let control = Control::restore(&card.control.save(), properties, channels);
    assert_eq!(control.as_ref(), Ok(&card.control));
    card.shares.iter().for_each(Shares::check_restore);
}
