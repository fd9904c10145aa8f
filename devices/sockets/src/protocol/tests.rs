//! Tests of the wire formats.

use vmbus_protocol::Guid;
use vmbus_protocol::offer::OfferFlags;

use super::*;

#[test]
fn test_service_of_a_port_has_the_template_and_the_port_first() {
    let service = service_of(5000);
    assert_eq!(service.to_string(), "00001388-facb-11e6-bd58-64006a7986d3");
    assert_eq!(port_of(service), Some(5000));
    assert_eq!(port_of(service_of(u32::MAX)), Some(u32::MAX));
    let mut other = service.to_bytes();
    other[15] ^= 1;
    assert_eq!(port_of(Guid::from_bytes(other)), None);
}

#[test]
fn test_offer_of_a_connection_says_which_end_connects() {
    let (service, endpoint) = (service_of(1), service_of(2));
    for (initiator, byte) in [(Initiator::Guest, 0), (Initiator::Host, 1)] {
        let offer = offer(initiator, service, endpoint);
        assert_eq!((offer.class, offer.instance), (service, endpoint));
        assert_eq!(offer.flags, OfferFlags::from_bits_retain(0x2011));
        assert!(offer.is_socket());
        assert_eq!(offer.user_defined[..10], [0, 0, 0, 0, byte, 0, 1, 0, 0, 0]);
        assert!(offer.user_defined[10..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn test_frame_of_each_length_is_checked_against_its_packet() {
    assert_eq!(frame(Some(data_header(1)), 16), Ok(Frame::Data(1)));
    assert_eq!(frame(Some(data_header(8)), 16), Ok(Frame::Data(8)));
    assert_eq!(frame(Some(data_header(0)), 8), Ok(Frame::End));
    assert_eq!(frame(Some(data_header(9)), 16), Err(BadFrame::Length { claimed: 9, packet: 16 }));
    assert_eq!(
        frame(Some(data_header(u32::MAX)), 16),
        Err(BadFrame::Length { claimed: u32::MAX, packet: 16 })
    );
    assert_eq!(frame(None, 4), Err(BadFrame::NoHeader(4)));
    for kind in [0, 2, 3, 4, u32::MAX] {
        let mut header = data_header(1);
        header[..4].copy_from_slice(&u32::to_le_bytes(kind));
        assert_eq!(frame(Some(header), 16), Err(BadFrame::Type(kind)));
    }
    assert_eq!([total_bytes(0), total_bytes(1), total_bytes(8)], [32, 40, 40]);
    assert_eq!(total_bytes(MAX_DATA), MAX_PACKET + 8);
}

#[test]
fn test_request_with_a_port_or_a_guid_is_parsed_and_the_data_behind_it_left() {
    let guid = "00001388-facb-11e6-bd58-64006a7986d3";
    let parsed = |text: &str| parse_request(text.as_bytes()).unwrap();
    assert_eq!(parsed("CONNECT 52\nCONNECT 53\n"), Some((Target::Port(52), 11)));
    assert_eq!(parsed("connect 4294967295\r\n"), Some((Target::Port(u32::MAX), 20)));
    let service = Target::Service(guid.parse().unwrap());
    assert_eq!(parsed(&format!("CONNECT {guid}\n")), Some((service, 45)));
    for part in ["", "C", "CONNECT 52"] {
        assert_eq!(parsed(part), None, "{part}");
    }
}

#[test]
fn test_request_of_another_form_is_refused() {
    let long = "CONNECT ".to_owned() + &"1".repeat(MAX_LINE);
    for bad in [
        "\n",
        "CONNECT\n",
        "CONNECT \n",
        "CONNECT 1 2\n",
        "CONNECT -1\n",
        "CONNECT +1\n",
        "CONNECT 4294967296\n",
        "LISTEN 1\n",
        "CONNECT 00001388-facb-11e6-bd58\n",
        "CONNECT \u{661}\n",
        &long,
    ] {
        assert_eq!(parse_request(bad.as_bytes()), Err(BadRequest), "{bad}");
    }
    assert_eq!(parse_request(b"CONNECT \xff\n"), Err(BadRequest));
}

#[test]
fn test_reply_has_the_port_that_the_guest_sees_or_the_guid() {
    let endpoint = service_of(0x8000_0001);
    assert_eq!(reply(Target::Port(1), endpoint), "OK 2147483649\n");
    assert_eq!(reply(Target::Service(endpoint), endpoint), format!("OK {endpoint}\n"));
}
