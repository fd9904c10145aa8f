//! A naive reading of RNDIS data messages and of RSS hashes.

use synthvm_netvsp::protocol::oid::RssSettings;
use synthvm_netvsp::protocol::rndis::{TransmitCursor, TransmitFrame, Vlan};

use crate::input::Input;

/// Reads an RNDIS data message by the cursor and by the naive reading. The message is any bytes, or
/// sound packets with some words replaced.
pub(crate) fn check_transmit(input: &mut Input<'_>, max_frame: u32) {
    let flags = input.u8();
    let mut message = Vec::new();
    if flags & 1 == 0 {
        let length = usize::from(input.u16());
        message.extend_from_slice(input.bytes(length));
    } else {
        for _ in 0..=flags >> 4 {
            push_packet(&mut message, input);
        }
    }
    for _ in 0..flags >> 1 & 7 {
        let at = usize::from(input.u8()) * 4;
        let word = input.u32();
        if let Some(target) = message.get_mut(at..at + 4) {
            target.copy_from_slice(&word.to_le_bytes());
        }
    }
    let got = by_cursor(&message, max_frame);
    let expected = naive(&message, max_frame);
    assert_eq!(got.as_ref().map(Vec::len), expected.as_ref().map(Vec::len));
    for (frame, (offset, length, vlan)) in got.iter().flatten().zip(expected.iter().flatten()) {
        assert_eq!((u64::from(frame.offset), u64::from(frame.length)), (*offset, *length));
        assert_eq!(frame.vlan, *vlan);
        assert!(offset + length <= message.len() as u64);
    }
}

/// Appends a packet with up to three items of per-packet information and a short frame.
fn push_packet(message: &mut Vec<u8>, input: &mut Input<'_>) {
    let shape = input.u8();
    let items = u32::from(shape & 3);
    let data = 14 + u32::from(shape >> 2);
    let total = (44 + 16 * items + data).next_multiple_of(8);
    let info = if items > 0 { [36, 16 * items] } else { [0, 0] };
    let header = [1, total, 36 + 16 * items, data, 0, 0, 0, info[0], info[1], 0, 0];
    let start = message.len();
    header.iter().for_each(|word: &u32| message.extend(word.to_le_bytes()));
    for _ in 0..items {
        let item = [16, u32::from(input.u8()), 12, input.u32()];
        item.iter().for_each(|word| message.extend(word.to_le_bytes()));
    }
    message.resize(start + total as usize, 0);
}

fn by_cursor(message: &[u8], max_frame: u32) -> Option<Vec<TransmitFrame>> {
    let mut cursor = TransmitCursor::new(message.len() as u32, max_frame);
    let mut frames = Vec::new();
    while let Some(header) = cursor.next_header() {
        let header = message.get(header.start as usize..header.end as usize);
        match cursor.parse_next(header.expect("a range of the message")) {
            Ok(frame) => frames.push(frame),
            Err(_) => {
                assert_eq!(cursor.next_header(), None);
                return None;
            }
        }
        assert!(frames.len() <= 8);
    }
    Some(frames)
}

/// Offset, length and tag of each frame. `None`: the message has a defect. All numbers have 64
/// bits, so nothing overflows.
fn naive(message: &[u8], max_frame: u32) -> Option<Vec<(u64, u64, Option<Vlan>)>> {
    let mut frames = Vec::new();
    let mut start = 0;
    while frames.is_empty() || message.len() - start >= 8 {
        let packet = &message[start..];
        let word = |offset: u64| word(packet, offset);
        let length = word(4)?;
        let is_sound = frames.len() < 8
            && word(0)? == 1
            && (44..=packet.len() as u64).contains(&length)
            && [16, 20, 24].iter().all(|offset| word(*offset) == Some(0));
        let (data, data_length) = (word(8)? + 8, word(12)?);
        word(40)?;
        if !is_sound || data + data_length > length {
            return None;
        }
        let info = naive_info(packet, length, data_length)?;
        let most = if info.is_segment { 65_535 + 18 } else { u64::from(max_frame) + 4 };
        if !(14..=most).contains(&data_length) {
            return None;
        }
        frames.push((start as u64 + data, data_length, info.vlan));
        start += length as usize;
    }
    Some(frames)
}

#[derive(Default)]
struct Info {
    is_segment: bool,
    vlan: Option<Vlan>,
}

fn naive_info(packet: &[u8], length: u64, data_length: u64) -> Option<Info> {
    let mut info = Info::default();
    let mut checksum = None;
    let mut segment = None;
    let (mut at, size) = (word(packet, 28)? + 8, word(packet, 32)?);
    let end = at + size;
    if size > 0 && (at < 44 || end > length || end > 256) {
        return None;
    }
    while size > 0 && at < end {
        if at + 12 > end {
            return None;
        }
        let (item, kind, offset) =
            (word(packet, at)?, word(packet, at + 4)?, word(packet, at + 8)?);
        if item < 12 || item % 4 != 0 || at + item > end || !(12..=item).contains(&offset) {
            return None;
        }
        if [0, 2, 6].contains(&kind) {
            if offset + 4 > item {
                return None;
            }
            let value = word(packet, at + offset)?;
            match kind {
                0 => checksum = Some(value),
                2 => segment = Some(value),
                _ => info.vlan = Some(vlan(value)),
            }
        }
        at += item;
    }
    info.is_segment = segment.is_some();
    let is_offset_sound = |offset: u64, is_ipv6: bool| {
        offset == 0 || (if is_ipv6 { 54 } else { 34 }..data_length).contains(&offset)
    };
    let is_sound = match (segment, checksum) {
        (Some(word), _) => {
            word & 0xF_FFFF != 0 && is_offset_sound(word >> 20 & 0x3FF, word >> 30 & 3 == 3)
        }
        (None, Some(word)) if word >> 2 & 7 != 0 => {
            let is_transport = word >> 2 & 3 != 0;
            matches!(word & 3, 1 | 2)
                && word >> 2 & 3 != 3
                && (!is_transport || is_offset_sound(word >> 16 & 0x3FF, word & 3 == 2))
        }
        _ => true,
    };
    is_sound.then_some(info)
}

fn vlan(word: u64) -> Vlan {
    let [priority, id] = [word & 7, word >> 4 & 0xFFF];
    Vlan { priority: priority as u8, drop_eligible: word & 8 != 0, id: id as u16 }
}

fn word(bytes: &[u8], offset: u64) -> Option<u64> {
    let bytes = bytes.get(usize::try_from(offset).ok()?..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes).into())
}

/// The hash of a frame, bit by bit.
pub(crate) fn hash(rss: &RssSettings, frame: &[u8]) -> Option<u32> {
    let mut at = 12;
    let kind = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    while at < 20 && matches!(kind(at)?, 0x8100 | 0x88A8) {
        at += 4;
    }
    let ip = frame.get(at + 2..)?;
    let (addresses, transport, protocol, [ports_type, addresses_type]) = match kind(at)? {
        0x0800 if ip.len() >= 20 && ip[0] >> 4 == 4 && ip[0] & 15 >= 5 => {
            let is_fragment = ip[6] & 0x3F != 0 || ip[7] != 0;
            let protocol = if is_fragment { 0 } else { ip[9] };
            (
                &ip[12..20],
                usize::from(ip[0] & 15) * 4,
                protocol,
                ports(protocol, 0x200, 0x4000, 0x100),
            )
        }
        0x86DD if ip.len() >= 40 && ip[0] >> 4 == 6 => {
            (&ip[8..40], 40, ip[6], ports(ip[6], 0x3000, 0x1_8000, 0xC00))
        }
        _ => return None,
    };
    let with_ports = ip.get(transport..transport + 4).filter(|_| matches!(protocol, 6 | 17));
    let input = match with_ports {
        Some(ports) if rss.types.0 & ports_type != 0 => [addresses, ports].concat(),
        _ if rss.types.0 & addresses_type != 0 => addresses.to_vec(),
        _ => return None,
    };
    let bit = |bytes: &[u8], at: usize| u32::from(bytes[at / 8] >> (7 - at % 8) & 1);
    let key = rss.key.bytes();
    let window = |start: usize| (start..start + 32).fold(0, |word, at| word << 1 | bit(key, at));
    let set = (0..8 * input.len()).filter(|at| bit(&input, *at) == 1);
    Some(set.fold(0, |hash, at| hash ^ window(at)))
}

/// Hash types with ports, and without.
fn ports(protocol: u8, tcp: u32, udp: u32, addresses: u32) -> [u32; 2] {
    match protocol {
        6 => [tcp, addresses],
        17 => [udp, addresses],
        _ => [0, addresses],
    }
}
