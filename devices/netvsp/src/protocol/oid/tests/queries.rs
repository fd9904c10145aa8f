//! Queries.

use super::super::*;
use super::*;

fn answer(code: u32) -> Result<Vec<u8>, RndisStatus> {
    answer_to(code, &CONNECTION, LINK)
}

fn answer_to(code: u32, connection: &Connection, link: Link) -> Result<Vec<u8>, RndisStatus> {
    query_with(code, &properties(), connection, link).map(|answer| answer.bytes().to_vec())
}

fn query_with(
    code: u32,
    properties: &CardProperties,
    connection: &Connection,
    link: Link,
) -> Result<OidAnswer, RndisStatus> {
    query(code, properties, &settings(), connection, link, &Statistics::default())
}

fn with_ndis(major: u32, minor: u32) -> Connection {
    Connection { ndis_version: NdisVersion { major, minor }, ..CONNECTION }
}

/// Checklist 29.
#[test]
fn test_query_of_each_word_has_4_bytes_and_the_value() {
    let words = [
        (0x0001_0102, 0),
        (0x0001_0103, 0),
        (0x0001_0104, 0),
        (0x0001_0105, 1500),
        (0x0001_0106, 1500),
        (0x0001_0107, 100_000_000),
        (0x0001_0108, 262_144),
        (0x0001_0109, 262_144),
        (0x0001_010A, 1514),
        (0x0001_010B, 1514),
        (0x0001_010C, 0x155D),
        (0x0001_010E, 0),
        (0x0001_010F, 1500),
        (0x0001_0111, 1514),
        (0x0001_0113, 0x24D),
        (0x0001_0114, 0),
        (0x0001_0115, u32::MAX),
        (0x0101_0104, 32),
        (0x0102_0101, 0),
        (0x0102_0102, 0),
        (0x0102_0103, 0),
    ];
    for (code, word) in words {
        assert_eq!(answer(code).unwrap(), u32::to_le_bytes(word), "{code:#x}");
    }
}

/// Checklist 29 and 30.
#[test]
fn test_query_of_other_values_has_the_exact_length() {
    assert_eq!(answer(0x0001_010D).unwrap(), b"Microsoft Corporation");
    assert_eq!(answer(0x0001_0116).unwrap(), [0, 1]);
    assert_eq!(answer(0x0001_0110).unwrap(), [0, 1]);
    assert_eq!(answer(0x0101_0101).unwrap(), ADDRESS.0);
    assert_eq!(answer(0x0101_0102).unwrap(), ADDRESS.0);
    let speed = 10_000_000_000_u64.to_le_bytes();
    assert_eq!(answer(0x0001_0206).unwrap(), [speed, speed].concat());
    let encapsulation = answer(0x0101_010A).unwrap();
    assert_eq!(encapsulation[..4], [0xA8, 1, 28, 0]);
    let words: Vec<_> = (4..28).step_by(4).map(|at| word_at(&encapsulation, at)).collect();
    assert_eq!(words, [1, 2, 14, 1, 2, 14]);
}

/// Checklist 29.
#[test]
fn test_query_of_unknown_oids_is_not_supported() {
    for code in [0, 1, 0x0001_0112, 0x0002_0100, 0x0002_020D, 0x0001_0204, 0xFC01_020C, u32::MAX] {
        assert_eq!(answer(code), Err(RndisStatus::NotSupported), "{code:#x}");
    }
}

#[test]
fn test_query_of_supported_list_follows_the_ndis_version() {
    let list = |major, minor| answer_to(0x0001_0101, &with_ndis(major, minor), LINK);
    let [oldest, first, middle, newest] =
        [(5, 0), (6, 0), (6, 20), (6, 30)].map(|(major, minor)| list(major, minor).unwrap());
    assert_eq!(oldest.len() % 4, 0);
    assert_eq!([first.len(), middle.len()], [oldest.len() + 4 * 23; 2]);
    assert_eq!(newest.len(), middle.len() + 8);
    for major in [0, 4, 7, u32::MAX] {
        assert_eq!(list(major, 0), Err(RndisStatus::BadVersion));
    }
    // Each listed OID is a query or a set that is known.
    for code in newest.chunks(4).map(|code| word_at(code, 0)) {
        let is_set = set_on(&mut settings(), code, &[]) != Err(RndisStatus::NotSupported);
        assert!(answer(code).is_ok() || is_set, "{code:#x}");
    }
}

#[test]
fn test_query_of_friendly_name_has_512_bytes_and_a_terminator() {
    let (long, pairs) = ("é".repeat(300), "😀".repeat(200));
    for (name, units) in [("", 0), ("net0", 4), (&long, 255), (&pairs, 255)] {
        let properties = CardProperties { name: name.to_owned(), ..properties() };
        let answer = query_with(0x0002_0216, &properties, &CONNECTION, LINK).unwrap();
        let expected: Vec<u8> = name.encode_utf16().take(255).flat_map(u16::to_le_bytes).collect();
        assert_eq!(answer.bytes().len(), 512);
        assert_eq!(answer.bytes()[..2 * units], expected);
        assert!(answer.bytes()[2 * units..].iter().all(|byte| *byte == 0));
    }
}

/// Checklist 39.
#[test]
fn test_query_of_link_follows_its_state() {
    let down = Link { is_up: false, speed: 1_000_000_000_000_000 };
    let words = |link| {
        let state = answer_to(0x0001_0207, &CONNECTION, link).unwrap();
        assert_eq!((state.len(), &state[..4]), (40, &[0x80, 1, 40, 0][..]));
        assert_eq!(state[16..24], link.speed.to_le_bytes());
        assert_eq!(state[24..32], link.speed.to_le_bytes());
        assert!(state[8..16].iter().chain(&state[32..]).all(|byte| *byte == 0));
        let [status, speed] = [0x0001_0114, 0x0001_0107]
            .map(|code| word_at(&answer_to(code, &CONNECTION, link).unwrap(), 0));
        [word_at(&state, 4), status, speed]
    };
    assert_eq!(words(LINK), [1, 0, 100_000_000]);
    assert_eq!(words(down), [2, 1, u32::MAX]);
}

/// Netvsc section 7.1: Linux refuses 20 bytes.
#[test]
fn test_query_of_rss_capabilities_has_exactly_18_bytes() {
    let answer = answer(0x0001_0203).unwrap();
    assert_eq!(answer.len(), 18);
    assert_eq!(answer[..4], [0x88, 2, 18, 0]);
    let words = [4, 8, 12].map(|offset| word_at(&answer, offset));
    assert_eq!(words, [0x301, 1, 8]);
    assert_eq!(answer[16..], [128, 0]);
}

/// Checklist 30.
#[test]
fn test_query_of_offload_capabilities_has_the_size_of_its_revision() {
    let sizes = [((6, 0), 1, 112), ((6, 1), 2, 144), ((6, 20), 2, 144), ((6, 30), 3, 156)];
    for ((major, minor), revision, size) in sizes.into_iter().chain([((6, 85), 3, 156)]) {
        for code in [0xFC01_020D, 0xFC01_020B] {
            let answer = answer_to(code, &with_ndis(major, minor), LINK).unwrap();
            assert_eq!(answer[..4], [0xA7, revision, size, 0]);
            assert_eq!(answer.len(), usize::from(size));
        }
    }
    let old = answer_to(0xFC01_020D, &with_ndis(5, 1), LINK);
    assert_eq!(old, Err(RndisStatus::NotSupported));
}

/// Netvsc section 7.3: the conditions of Linux.
#[test]
fn test_query_of_offload_capabilities_satisfies_linux() {
    let answer = answer(0xFC01_020D).unwrap();
    let word = |offset| word_at(&answer, offset);
    let encapsulations = [4, 12, 20, 28, 80, 92].map(word);
    assert_eq!(encapsulations, [2; 6]);
    assert_eq!([word(8), word(16)], [0x155; 2]);
    assert_eq!([word(24), word(32)], [0x55; 2]);
    assert_eq!([word(84), word(88), word(96), word(100)], [0xF53C, 2, 0xF53C, 2]);
    assert_eq!(word(104), 5);
    assert_eq!(answer[144..148], [1, 1, 0, 0]);
    let reserved = answer[36..80].iter().chain(&answer[108..144]).chain(&answer[148..]);
    assert!(reserved.into_iter().all(|byte| *byte == 0));
}

#[test]
fn test_query_of_offloads_that_are_off_is_zero() {
    let properties = CardProperties { offloads: Offloads::default(), ..properties() };
    let answer = query_with(0xFC01_020D, &properties, &CONNECTION, LINK).unwrap();
    assert!(answer.bytes()[4..].iter().all(|byte| *byte == 0));
    let only_udp =
        Offloads { udp4: Directions { transmit: true, receive: false }, ..Offloads::default() };
    let structure = only_udp.to_ndis(OffloadRevision::R3);
    let words: Vec<_> = (4..36).step_by(4).map(|at| word_at(structure.bytes(), at)).collect();
    assert_eq!(words, [2, 0x41, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn test_query_of_offloads_without_coalescing_capability_hides_it() {
    let connection = Connection { may_coalesce: false, ..CONNECTION };
    let answer = answer_to(0xFC01_020D, &connection, LINK).unwrap();
    assert_eq!(answer[144..146], [0, 0]);
    assert_eq!(answer_to(0xFC01_020B, &CONNECTION, LINK).unwrap()[144..146], [0, 0]);
}
