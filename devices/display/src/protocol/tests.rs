//! Tests of messages; devices/display/tests speaks whole sessions.

use super::*;

fn read(bytes: &[u8]) -> Option<(Option<ClientMessage>, usize)> {
    let mut reader = ClientReader::default();
    reader.has_extended_buttons = true;
    reader.read(bytes).unwrap()
}

#[test]
fn test_message_needs_all_of_its_bytes() {
    let messages: [&[u8]; 9] = [
        &[0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0],
        &[2, 0, 0, 2, 0, 0, 0, 16, 0, 0, 0, 7],
        &[3, 1, 0, 1, 0, 2, 0, 3, 0, 4],
        &[4, 1, 0, 0, 0, 0, 0xFF, 0x0D],
        &[5, 0x81, 0, 5, 0, 6, 2],
        &[150, 1, 0, 1, 0, 2, 0, 3, 0, 4],
        &[248, 0, 0, 0, 0x80, 0, 0, 1, 2, 8, 9],
        &[251, 0, 4, 0, 3, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 4, 0, 3, 0, 0, 0, 0, 0],
        &[255, 0, 0, 1, 0, 0, 0, 0x61, 0, 0, 0, 0x1E],
    ];
    for message in messages {
        for length in 0..message.len() {
            assert_eq!(read(&message[..length]), None, "{length} bytes of {message:?}");
        }
        let with_more = [message, &[0xAA; 5]].concat();
        let (read, length) = read(&with_more).unwrap();
        assert!(read.is_some());
        assert_eq!(length, message.len());
    }
}

#[test]
fn test_pointer_event_has_its_second_byte_only_if_it_was_negotiated() {
    let (message, length) = read(&[5, 0x81, 0, 5, 0, 6, 2]).unwrap();
    assert_eq!(message, Some(ClientMessage::Pointer { buttons: 0x101, x: 5, y: 6 }));
    assert_eq!(length, 7);
    let plain = ClientReader::default().read(&[5, 0x81, 0, 5, 0, 6, 2]).unwrap().unwrap();
    assert_eq!(plain, (Some(ClientMessage::Pointer { buttons: 1, x: 5, y: 6 }), 6));
}

#[test]
fn test_text_is_discarded_as_it_arrives() {
    let mut reader = ClientReader::default();
    let text = reader.read(&[6, 0, 0, 0, 0, 0, 0, 5, 1, 2]).unwrap();
    assert_eq!(text, Some((Some(ClientMessage::CutText), 8)));
    assert_eq!(reader.read(&[1, 2]).unwrap(), Some((None, 2)));
    assert_eq!(reader.read(&[]).unwrap(), None);
    assert_eq!(reader.read(&[3, 4, 5, 250, 0, 1, 2]).unwrap(), Some((None, 3)));
    assert_eq!(reader.read(&[250, 0, 1, 2]).unwrap(), Some((Some(ClientMessage::Ignored), 4)));
}

#[test]
fn test_pixel_format_reads_back_and_invalid_ones_are_refused() {
    let native = PixelFormat::NATIVE.to_bytes();
    assert_eq!(PixelFormat::read(&native), Ok(PixelFormat::NATIVE));
    let with = |changes: &[(usize, u8)]| {
        let mut bytes = native;
        changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        PixelFormat::read(&bytes)
    };
    assert!(with(&[(0, 24)]).is_err(), "24 bits");
    assert!(with(&[(3, 0)]).is_err(), "a colour map of 32 bits");
    assert!(with(&[(5, 254)]).is_err(), "not all bits of a colour");
    assert!(with(&[(5, 0)]).is_err(), "no red");
    assert!(with(&[(10, 25)]).is_err(), "red beyond the pixel");
    assert!(with(&[(0, 8), (3, 0)]).unwrap().has_colour_map());
}
