//! Control messages.

use super::super::*;
use super::{put, word_at};
use crate::protocol::MacAddress;
use crate::protocol::nvsp::{NdisVersion, NvspStatus};
use crate::protocol::oid::{
    CardProperties, Change, Connection, Directions, Link, OffloadRevision, Offloads, Statistics,
};

const ADDRESS: MacAddress = MacAddress([0x00, 0x15, 0x5D, 1, 2, 3]);
const LINK: Link = Link { is_up: true, speed: 10_000_000_000 };
const CONNECTION: Connection = Connection {
    max_frame: 1514,
    ndis_version: NdisVersion::V6_30,
    channels: 1,
    may_coalesce: false,
};

fn properties() -> CardProperties {
    CardProperties {
        address: ADDRESS,
        name: "net0".to_owned(),
        max_channels: 4,
        offloads: Offloads { tcp4: Directions::BOTH, segment4: true, ..Offloads::default() },
        may_change_address: true,
    }
}

fn new() -> Control {
    Control::new(properties(), ADDRESS)
}

fn initialized() -> Control {
    let mut control = new();
    answer(&mut control, &message(2, &[1, 1, 0, 0x4000], &[]));
    control
}

fn message(kind: u32, body: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend((8 + 4 * body.len() as u32 + data.len() as u32).to_le_bytes());
    body.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    bytes.extend(data);
    bytes
}

fn query(id: u32, oid: u32) -> Vec<u8> {
    message(4, &[id, oid, 0, 20, 0], &[])
}

fn set(id: u32, oid: u32, data: &[u8]) -> Vec<u8> {
    message(5, &[id, oid, data.len() as u32, 20, 0], data)
}

fn handle(control: &mut Control, message: &[u8]) -> ControlOutcome {
    let outcome = control.handle(message, &CONNECTION, LINK, &Statistics::default());
    for sent in [outcome.answer, outcome.indication].iter().flatten() {
        assert_eq!(word_at(sent.bytes(), 4) as usize, sent.bytes().len());
    }
    outcome
}

/// The answer, as words.
fn answer(control: &mut Control, message: &[u8]) -> Vec<u32> {
    let outcome = handle(control, message);
    assert_eq!(outcome.status, NvspStatus::Success);
    words(&outcome.answer.unwrap())
}

fn words(message: &ControlMessage) -> Vec<u32> {
    (0..message.bytes().len()).step_by(4).map(|at| word_at(message.bytes(), at)).collect()
}

/// Checklist 27.
#[test]
fn test_initialize_is_answered_with_the_values_of_the_host() {
    let mut control = new();
    let outcome = handle(&mut control, &message(2, &[7, 1, 0, 0x4000], &[]));
    assert_eq!(outcome.effect, ControlEffect::Initialized);
    let expected = [0x8000_0002, 52, 7, 0, 1, 0, 1, 0, 8, 0xEFFF_FFFF, 3, 0, 0];
    assert_eq!(words(&outcome.answer.unwrap()), expected);
    assert_eq!(control.stage(), Stage::Initialized);
}

/// Checklist 27.
#[test]
fn test_initialize_repeated_or_of_unknown_version_fails() {
    let mut control = initialized();
    assert_eq!(answer(&mut control, &message(2, &[8, 1, 0, 0], &[]))[3], 0xC000_0001);
    let mut control = new();
    assert_eq!(answer(&mut control, &message(2, &[8, 2, 0, 0], &[]))[3], 0xC001_0004);
    assert_eq!(control.stage(), Stage::New);
    assert_eq!(answer(&mut control, &message(2, &[9, 1, 0, 0], &[]))[3], 0);
}

/// Checklist 27.
#[test]
fn test_halt_has_no_answer_and_stops_reception() {
    let mut control = initialized();
    let parameter = [20, 28, 2, 48, 24].iter().flat_map(|word: &u32| word.to_le_bytes());
    let text = "NetworkAddress02abcd012345".encode_utf16().flat_map(u16::to_le_bytes);
    let parameter: Vec<u8> = parameter.chain(text).collect();
    assert_eq!(answer(&mut control, &set(1, 0x0001_021B, &parameter))[3], 0);
    answer(&mut control, &set(1, 0x0001_010E, &[0xD, 0, 0, 0]));
    let outcome = handle(&mut control, &message(3, &[2], &[]));
    let expected = ControlOutcome {
        status: NvspStatus::Success,
        answer: None,
        indication: None,
        effect: ControlEffect::Halted,
    };
    assert_eq!(outcome, expected);
    assert_eq!(control.stage(), Stage::Halted);
    assert_eq!(control.settings().filter.kinds.0, 0);
    assert_eq!(control.settings().filter.current.0[0], 2);
    assert_eq!(answer(&mut control, &query(3, 0x0101_0101))[3], 0xC000_0001);
    assert_eq!(answer(&mut control, &message(2, &[4, 1, 0, 0], &[]))[3], 0);
}

/// Checklist 28.
#[test]
fn test_keepalive_and_reset_are_answered() {
    let mut control = initialized();
    assert_eq!(answer(&mut control, &message(8, &[9], &[])), [0x8000_0008, 16, 9, 0]);
    assert_eq!(answer(&mut control, &message(6, &[0], &[])), [0x8000_0006, 16, 0xC000_00BB, 0]);
    assert_eq!(control, initialized());
}

/// Checklist 29.
#[test]
fn test_query_is_answered_with_data_at_offset_16() {
    let mut control = initialized();
    let words = answer(&mut control, &query(5, 0x0001_0106));
    assert_eq!(words, [0x8000_0004, 28, 5, 0, 4, 16, 1500]);
    let outcome = handle(&mut control, &query(6, 0x0101_0101));
    let bytes = outcome.answer.unwrap();
    assert_eq!(bytes.bytes().len(), 30);
    assert_eq!(bytes.bytes()[24..], ADDRESS.0);
    let outcome = handle(&mut control, &query(6, 0x0002_0216));
    assert_eq!(outcome.answer.unwrap().bytes().len(), ControlMessage::MAX);
}

/// Checklist 29.
#[test]
fn test_query_of_unknown_oid_has_status_and_length_0() {
    let mut control = initialized();
    let words = answer(&mut control, &query(5, 0xDEAD));
    assert_eq!(words, [0x8000_0004, 24, 5, 0xC000_00BB, 0, 0]);
}

#[test]
fn test_requests_before_initialize_fail() {
    let mut control = new();
    assert_eq!(answer(&mut control, &query(5, 0x0101_0101))[3], 0xC000_0001);
    assert_eq!(answer(&mut control, &set(5, 0x0001_010E, &[1, 0, 0, 0]))[3], 0xC000_0001);
    assert_eq!(control, new());
}

/// Checklist 31.
#[test]
fn test_set_offload_parameters_is_followed_by_one_indication() {
    let mut control = initialized();
    let mut data = vec![0; 28];
    data[..12].copy_from_slice(&[0x80, 3, 28, 0, 0, 2, 0, 0, 0, 0, 0, 1]);
    let outcome = handle(&mut control, &set(7, 0xFC01_020C, &data));
    assert_eq!(words(&outcome.answer.unwrap()), [0x8000_0005, 16, 7, 0]);
    assert_eq!(outcome.effect, ControlEffect::Changed(Change::Offloads));
    let offloads = control.settings().offloads;
    assert_eq!((offloads.segment4, offloads.tcp4.receive), (false, false));
    let indication = ControlMessage::offload_config(offloads, OffloadRevision::R3);
    assert_eq!(outcome.indication, Some(indication));
    assert_eq!(words(&indication)[..5], [7, 176, 0x4002_0006, 156, 12]);
    assert_eq!(indication.bytes()[20..24], [0xA7, 3, 156, 0]);
    data[0] = 0x81;
    let outcome = handle(&mut control, &set(8, 0xFC01_020C, &data));
    assert_eq!(words(&outcome.answer.unwrap()), [0x8000_0005, 16, 8, 0xC001_0015]);
    assert_eq!((outcome.indication, outcome.effect), (None, ControlEffect::None));
}

/// Checklist 34.
#[test]
fn test_set_honours_the_offset_of_its_information() {
    let mut control = initialized();
    let mut message = set(7, 0x0001_010E, &[0xFF, 0xFF, 0xFF, 0xFF, 0xD, 0, 0, 0]);
    put(&mut message, 16, 4);
    put(&mut message, 20, 24);
    assert_eq!(answer(&mut control, &message)[3], 0);
    assert_eq!(control.settings().filter.kinds.0, 0xD);
}

/// Checklist 34.
#[test]
fn test_set_with_information_outside_of_the_message_is_invalid_data() {
    let mut control = initialized();
    let before = control.clone();
    for (length, offset) in
        [(5, 20), (4, 21), (4, u32::MAX), (4, u32::MAX - 8), (u32::MAX, 20), (u32::MAX, u32::MAX)]
    {
        let mut message = set(7, 0x0001_010E, &[0xD, 0, 0, 0]);
        put(&mut message, 16, length);
        put(&mut message, 20, offset);
        // Bytes of the packet behind the message do not count.
        message.extend([0; 16]);
        assert_eq!(answer(&mut control, &message), [0x8000_0005, 16, 7, 0xC001_0015]);
    }
    assert_eq!(control, before);
}

#[test]
fn test_control_message_cut_short_is_refused_without_an_answer() {
    let messages = [
        (message(2, &[1, 1, 0, 0], &[]), 16),
        (message(3, &[1], &[]), 8),
        (query(1, 2), 16),
        (set(1, 2, &[1, 2, 3, 4]), 24),
        (message(6, &[0], &[]), 8),
        (message(8, &[1], &[]), 12),
    ];
    for (whole, needed) in messages {
        for length in 0..whole.len() {
            let mut cut = whole[..length].to_vec();
            // The message claims more than the packet has.
            assert!(ControlRequest::parse(&cut).is_err());
            if length >= 8 {
                put(&mut cut, 4, length as u32);
                assert_eq!(ControlRequest::parse(&cut).is_ok(), length >= needed);
            }
        }
        for length in [0, 7, u32::MAX] {
            let mut changed = whole.clone();
            put(&mut changed, 4, length);
            let outcome = handle(&mut initialized(), &changed);
            assert_eq!(outcome.status, NvspStatus::InvalidRndisPacket);
            assert_eq!((outcome.answer, outcome.effect), (None, ControlEffect::None));
        }
    }
}

#[test]
fn test_control_message_of_unknown_type_is_refused() {
    for kind in [0, 1, 7, 9, 0x8000_0002, u32::MAX] {
        let message = message(kind, &[1; 8], &[]);
        assert_eq!(ControlRequest::parse(&message), Err(MalformedControl::Unknown(kind)));
        let outcome = handle(&mut initialized(), &message);
        assert_eq!(outcome.status, NvspStatus::InvalidRndisPacket);
        assert_eq!(outcome.answer, None);
    }
}

/// Checklist 39.
#[test]
fn test_indications_have_status_and_data() {
    assert_eq!(words(&ControlMessage::media_connect(true)), [7, 20, 0x4001_000B, 0, 0]);
    assert_eq!(words(&ControlMessage::media_connect(false)), [7, 20, 0x4001_000C, 0, 0]);
    assert_eq!(words(&ControlMessage::network_change()), [7, 20, 0x4001_0018, 0, 0]);
    let speed = words(&ControlMessage::link_speed(LINK));
    assert_eq!(speed, [7, 24, 0x4001_0013, 4, 12, 100_000_000]);
}

/// Checklist 44.
#[test]
fn test_control_restored_equals_the_saved_one() {
    let mut control = initialized();
    answer(&mut control, &set(1, 0x0001_010E, &[0xD, 0, 0, 0]));
    answer(&mut control, &set(2, 0x0101_0103, &[1; 12]));
    let saved = control.save();
    assert_eq!(Control::restore(&saved, properties(), 1), Ok(control));
    assert_eq!(Control::restore(&new().save(), properties(), 1), Ok(new()));
    let change: [fn(&mut SavedControl); 8] = [
        |saved| saved.address = [1; 6],
        |saved| saved.multicast = vec![1; 7],
        |saved| saved.offloads.segment6 = true,
        |saved| saved.key.truncate(39),
        |saved| saved.table.truncate(64),
        |saved| saved.table.push(0),
        |saved| saved.table.clear(),
        |saved| saved.table[5] = 1,
    ];
    for change in change {
        let mut changed = saved.clone();
        change(&mut changed);
        assert!(Control::restore(&changed, properties(), 1).is_err(), "{changed:?}");
    }
}

/// Netvsc section 7.7.
#[test]
fn test_query_of_a_counter_answers_from_the_statistics_of_the_caller() {
    let statistics = Statistics { send_errors: 0x1_0000_0002, ..Statistics::default() };
    let mut control = initialized();
    let outcome = control.handle(&query(9, 0x0002_0103), &CONNECTION, LINK, &statistics);
    assert_eq!(words(&outcome.answer.unwrap())[2..], [9, 0, 8, 16, 2, 1]);
    assert_eq!(answer(&mut control, &query(9, 0x0002_0103))[2..], [9, 0, 8, 16, 0, 0]);
}
