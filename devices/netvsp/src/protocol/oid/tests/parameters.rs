//! SET of offload parameters, driver parameters, filter and lists.

use super::super::*;
use super::*;

const OFFLOAD_PARAMETERS: u32 = 0xFC01_020C;
const CONFIG_PARAMETER: u32 = 0x0001_021B;

/// Offload parameters of `size` bytes, with values at these offsets.
fn offload_parameters(size: u8, values: &[(usize, u8)]) -> Vec<u8> {
    let mut data = vec![0; size.into()];
    data[..4].copy_from_slice(&[0x80, 3, size, 0]);
    values.iter().for_each(|(offset, value)| data[*offset] = *value);
    data
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// A driver parameter.
fn parameter(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    let name = utf16(name);
    let fields = [20, name.len() as u32, kind, 20 + name.len() as u32, value.len() as u32];
    let header: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
    [header, name, value.to_vec()].concat()
}

fn set_parameter(settings: &mut Settings, data: &[u8]) -> Result<Change, RndisStatus> {
    set_on(settings, CONFIG_PARAMETER, data)
}

/// Checklist 31.
#[test]
fn test_set_offload_parameters_of_each_size_is_accepted() {
    for size in [20, 22, 24, 28] {
        let mut settings = settings();
        let data = offload_parameters(size, &[(4, 1), (5, 2), (6, 3), (7, 4), (11, 1), (12, 2)]);
        assert_eq!(set_on(&mut settings, OFFLOAD_PARAMETERS, &data), Ok(Change::Offloads));
        let expected = Offloads {
            ipv4: Directions::default(),
            tcp4: Directions { transmit: true, receive: false },
            udp4: Directions { transmit: false, receive: true },
            segment4: false,
            coalesce4: false,
            coalesce6: false,
            ..ALL_OFFLOADS
        };
        assert_eq!(settings.offloads, expected);
    }
}

#[test]
fn test_set_offload_parameters_coalescing_needs_its_bytes_and_the_capability() {
    for (size, is_on) in [(28, true), (24, true)] {
        let mut settings = settings();
        let data = offload_parameters(size, &[(22, 2), (23, 2)]);
        set_on(&mut settings, OFFLOAD_PARAMETERS, &data).unwrap();
        assert_eq!([settings.offloads.coalesce4, settings.offloads.coalesce6], [is_on; 2]);
    }
    // The header ends before the bytes.
    let mut short = offload_parameters(28, &[(22, 2), (23, 2)]);
    short[2] = 22;
    let mut settings = settings();
    set_on(&mut settings, OFFLOAD_PARAMETERS, &short).unwrap();
    assert!(!settings.offloads.coalesce4);
    let connection = Connection { may_coalesce: false, ..CONNECTION };
    let data = offload_parameters(28, &[(22, 2), (23, 2)]);
    set(OFFLOAD_PARAMETERS, &data, &properties(), &mut settings, &connection).unwrap();
    assert!(!settings.offloads.coalesce4);
}

/// Checklist 31.
#[test]
fn test_set_offload_parameters_malformed_is_invalid_data() {
    let good = offload_parameters(28, &[]);
    let changes = [(0, 0x81), (1, 0), (2, 19), (2, 29), (3, 1), (5, 5), (9, 3), (11, 3), (23, 255)];
    for (offset, value) in changes {
        let mut data = good.clone();
        data[offset] = value;
        let result = set_on(&mut settings(), OFFLOAD_PARAMETERS, &data);
        assert_eq!(result, Err(RndisStatus::InvalidData), "{offset} {value}");
    }
    for length in 0..28 {
        let result = set_on(&mut settings(), OFFLOAD_PARAMETERS, &good[..length]);
        assert_eq!(result, Err(RndisStatus::InvalidData));
    }
}

/// Checklist 31.
#[test]
fn test_set_offload_parameters_large_send_version_1_is_not_supported() {
    let data = offload_parameters(28, &[(4, 1), (9, 2)]);
    let result = set_on(&mut settings(), OFFLOAD_PARAMETERS, &data);
    assert_eq!(result, Err(RndisStatus::NotSupported));
    let data = offload_parameters(28, &[(9, 1)]);
    assert!(set_on(&mut settings(), OFFLOAD_PARAMETERS, &data).is_ok());
}

#[test]
fn test_set_offload_parameters_beyond_the_card_stay_off() {
    let offloads = Offloads { tcp4: Directions::BOTH, ..Offloads::default() };
    let properties = CardProperties { offloads, ..properties() };
    let mut settings = Settings::new(&properties, ADDRESS);
    let values: Vec<_> =
        (4..9).map(|offset| (offset, 4)).chain([(11, 2), (12, 2), (22, 2)]).collect();
    let data = offload_parameters(28, &values);
    let result = set(OFFLOAD_PARAMETERS, &data, &properties, &mut settings, &CONNECTION);
    assert_eq!(result, Ok(Change::Offloads));
    assert_eq!(settings.offloads, offloads);
}

/// Checklist 33.
#[test]
fn test_set_network_address_changes_the_filter() {
    let mut settings = settings();
    for (text, terminator) in [("02AbCd012345", false), ("02abcd012346", true)] {
        let mut value = utf16(text);
        value.extend([0; 2].iter().filter(|_| terminator));
        let data = parameter("NetworkAddress", 2, &value);
        assert_eq!(set_parameter(&mut settings, &data), Ok(Change::Address));
    }
    assert_eq!(settings.filter.current, MacAddress([2, 0xAB, 0xCD, 1, 0x23, 0x46]));
    assert_eq!(settings.filter.permanent, ADDRESS);
}

/// Checklist 33.
#[test]
fn test_set_network_address_malformed_is_invalid_data() {
    for text in ["", "0", "02abcd01234", "02abcd01234g", "02abcd0123456", "01abcd012345"] {
        let data = parameter("NetworkAddress", 2, &utf16(text));
        assert_eq!(set_parameter(&mut settings(), &data), Err(RndisStatus::InvalidData), "{text}");
    }
    for (kind, text) in [(0, "02abcd012345"), (2, "000000000000"), (2, "ffffffffffff")] {
        let data = parameter("NetworkAddress", kind, &utf16(text));
        assert_eq!(set_parameter(&mut settings(), &data), Err(RndisStatus::InvalidData));
    }
    let mut odd = utf16("02abcd012345");
    odd.push(0);
    let data = parameter("NetworkAddress", 2, &odd);
    assert_eq!(set_parameter(&mut settings(), &data), Err(RndisStatus::InvalidData));
}

#[test]
fn test_set_network_address_not_allowed_fails() {
    let properties = CardProperties { may_change_address: false, ..properties() };
    let mut settings = settings();
    let mut change = |text| {
        let data = parameter("NetworkAddress", 2, &utf16(text));
        set(CONFIG_PARAMETER, &data, &properties, &mut settings, &CONNECTION)
    };
    assert_eq!(change("02abcd012345"), Err(RndisStatus::Failure));
    assert_eq!(change("00155d010203"), Ok(Change::None));
}

/// Checklist 33.
#[test]
fn test_set_driver_parameter_outside_of_the_data_is_invalid_data() {
    let good = parameter("NetworkAddress", 2, &utf16("02abcd012345"));
    for (offset, word) in [
        (0, 73),
        (0, u32::MAX),
        (4, 27),
        (4, 53),
        (4, u32::MAX),
        (12, 49),
        (12, u32::MAX),
        (16, 25),
        (16, u32::MAX),
    ] {
        let mut data = good.clone();
        put(&mut data, offset, word);
        let result = set_parameter(&mut settings(), &data);
        assert_eq!(result, Err(RndisStatus::InvalidData), "{offset} {word}");
    }
    for length in 0..good.len() {
        let result = set_parameter(&mut settings(), &good[..length]);
        assert_eq!(result, Err(RndisStatus::InvalidData));
    }
    let long = parameter(&"x".repeat(128), 2, &[]);
    assert_eq!(set_parameter(&mut settings(), &long), Err(RndisStatus::InvalidData));
}

#[test]
fn test_set_offload_keywords_change_their_offload() {
    type Get = fn(&Offloads) -> Directions;
    let keywords: [(&str, Get); 5] = [
        ("*IPChecksumOffloadIPv4", |offloads| offloads.ipv4),
        ("*TCPChecksumOffloadIPv4", |offloads| offloads.tcp4),
        ("*TCPChecksumOffloadIPv6", |offloads| offloads.tcp6),
        ("*UDPChecksumOffloadIPv4", |offloads| offloads.udp4),
        ("*UDPChecksumOffloadIPv6", |offloads| offloads.udp6),
    ];
    for (name, get) in keywords {
        for number in 0..4_u32 {
            let expected = Directions { transmit: number & 1 != 0, receive: number & 2 != 0 };
            let text = utf16(&number.to_string());
            for (kind, value) in [(2, text), (0, number.to_le_bytes().to_vec())] {
                let mut settings = settings();
                let data = parameter(name, kind, &value);
                let result = set_parameter(&mut settings, &data);
                assert_eq!(result, Ok(Change::OffloadKeyword));
                assert_eq!(get(&settings.offloads), expected);
            }
        }
    }
    let mut settings = settings();
    set_parameter(&mut settings, &parameter("*LsoV2IPv4", 2, &utf16("0"))).unwrap();
    assert!(!settings.offloads.segment4 && settings.offloads.segment6);
    set_parameter(&mut settings, &parameter("*LsoV2IPv6", 2, &utf16("0"))).unwrap();
    assert!(!settings.offloads.segment6);
}

#[test]
fn test_set_offload_keyword_with_bad_value_is_invalid_data() {
    for (kind, value) in
        [(2, utf16("4")), (2, utf16("/")), (2, vec![]), (0, vec![1]), (1, utf16("1"))]
    {
        let data = parameter("*LsoV2IPv4", kind, &value);
        assert_eq!(set_parameter(&mut settings(), &data), Err(RndisStatus::InvalidData));
    }
}

#[test]
fn test_set_unknown_driver_parameter_is_ignored() {
    for name in ["", "*RSS", "networkaddress", "NetworkAddres", "NetworkAddress1"] {
        let data = parameter(name, 9, &utf16("1"));
        assert_eq!(set_parameter(&mut settings(), &data), Ok(Change::None));
    }
}

/// Checklist 24.
#[test]
fn test_set_packet_filter_and_multicast_list_change_the_filter() {
    let mut settings = settings();
    assert_eq!(set_on(&mut settings, 0x0001_010E, &0xD_u32.to_le_bytes()), Ok(Change::Filter));
    assert_eq!(settings.filter.kinds.0, 0xD);
    let none = Statistics::default();
    let answer = query(0x0001_010E, &properties(), &settings, &CONNECTION, LINK, &none).unwrap();
    assert_eq!(answer.bytes(), 0xD_u32.to_le_bytes());
    assert_eq!(set_on(&mut settings, 0x0001_010E, &[1, 0, 0]), Err(RndisStatus::InvalidLength));
    assert_eq!(set_on(&mut settings, 0x0101_0103, &[1; 12]), Ok(Change::Filter));
    assert_eq!(settings.filter.multicast.addresses().len(), 2);
    assert_eq!(set_on(&mut settings, 0x0101_0103, &[1; 13]), Err(RndisStatus::InvalidLength));
    assert_eq!(set_on(&mut settings, 0x0101_0103, &[1; 198]), Err(RndisStatus::Resources));
}

#[test]
fn test_set_encapsulation_accepts_ethernet_only() {
    let words = |words: [u32; 6]| {
        let mut data = vec![0xA8, 1, 28, 0];
        words.iter().for_each(|word| data.extend(word.to_le_bytes()));
        data
    };
    let good = words([1, 2, 14, 1, 2, 14]);
    let set = |data: &[u8]| set_on(&mut settings(), 0x0101_010A, data);
    assert_eq!(set(&good), Ok(Change::None));
    assert_eq!(set(&words([0, 9, 9, 0, 9, 9])), Ok(Change::None));
    for bad in [[1, 1, 14, 1, 2, 14], [1, 2, 18, 1, 2, 14], [1, 2, 14, 1, 2, 0]] {
        assert_eq!(set(&words(bad)), Err(RndisStatus::NotSupported));
    }
    for length in 0..28 {
        assert_eq!(set(&good[..length]), Err(RndisStatus::InvalidData));
    }
    for (offset, value) in [(0, 0xA7), (1, 0), (2, 27)] {
        let mut data = good.clone();
        data[offset] = value;
        assert_eq!(set(&data), Err(RndisStatus::InvalidData));
    }
}

#[test]
fn test_set_of_other_oids_is_ignored_or_not_supported() {
    assert_eq!(set_on(&mut settings(), 0x0001_0118, &[1, 2, 3]), Ok(Change::None));
    for code in [0, 0x0001_0101, 0x0101_0101, 0xFC01_020D, 0xFD01_0101, u32::MAX] {
        let result = set_on(&mut settings(), code, &[0; 64]);
        assert_eq!(result, Err(RndisStatus::NotSupported));
    }
}
