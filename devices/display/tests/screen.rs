//! Viewers see the guest's pixels, in each encoding and format.

mod common;

use common::client::{
    CONTINUOUS_UPDATES, CURSOR, CURSOR_WITH_ALPHA, Client, DESKTOP_SIZE, EXTENDED_DESKTOP_SIZE,
    FENCE, FORMATS, POINTER_POSITION, RAW, Sent, TIGHT, ZRLE,
};
use common::guest::Guest;
use synthvm_display::{DisplayOptions, DisplayServer};

const ENCODINGS: [i32; 3] = [RAW, ZRLE, TIGHT];

fn start(width: usize, height: usize) -> (Guest, DisplayServer) {
    let guest = Guest::new(width, height);
    let server = guest.server(DisplayOptions::default());
    (guest, server)
}

fn await_picture(client: &mut Client, guest: &Guest) {
    client.await_picture(guest.width, guest.height, &guest.pixels);
}

#[test]
fn test_viewers_of_each_encoding_and_format_see_each_random_change() {
    let (mut guest, server) = start(333, 217);
    let mut clients = Vec::new();
    for format in FORMATS {
        for encoding in ENCODINGS {
            let mut client = Client::view(&server);
            client.set_encodings(&[encoding, RAW]);
            client.set_format(format);
            clients.push(client);
        }
    }
    for _ in 0..15 {
        guest.draw();
        clients.iter_mut().for_each(|client| await_picture(client, &guest));
    }
    assert_eq!(server.report().viewers, 27);
}

#[test]
fn test_viewer_that_changes_encoding_and_format_sees_the_same_picture() {
    let (mut guest, server) = start(200, 150);
    let mut client = Client::view(&server);
    for round in 0..60 {
        let (encoding, format) = (ENCODINGS[round % 3], FORMATS[round / 3 % 9]);
        client.set_encodings(&[encoding, -256 + (round % 10) as i32]);
        client.set_format(format);
        client.request(false);
        client.update();
        guest.draw();
        await_picture(&mut client, &guest);
    }
}

#[test]
fn test_large_screen_is_sent_in_rectangles_that_each_encoding_permits() {
    let (mut guest, server) = start(2400, 1300);
    for _ in 0..200 {
        guest.draw();
    }
    for encoding in ENCODINGS {
        let mut client = Client::view(&server);
        client.set_encodings(&[encoding]);
        await_picture(&mut client, &guest);
    }
}

#[test]
fn test_viewers_that_read_while_their_buffers_are_full_get_the_rest_of_the_update() {
    // The point at which a viewer reads is a matter of luck: without the resumption, about one
    // round of six did not end on two idle processors.
    for _ in 0..16 {
        let (mut guest, server) = start(2400, 1300);
        for _ in 0..200 {
            guest.draw();
        }
        for encoding in ENCODINGS {
            let mut client = Client::view(&server);
            client.set_encodings(&[encoding]);
            await_picture(&mut client, &guest);
        }
    }
}

#[test]
fn test_preferred_encoding_is_the_first_that_the_server_knows() {
    let (_guest, server) = start(64, 64);
    let mut client = Client::view(&server);
    for (list, expected) in
        [(&[5, ZRLE, TIGHT][..], ZRLE), (&[TIGHT, ZRLE], TIGHT), (&[5, 6], RAW), (&[], RAW)]
    {
        client.set_encodings(list);
        client.request(false);
        assert_eq!(client.update()[0].encoding, expected);
    }
}

#[test]
fn test_unchanged_segments_are_not_sent() {
    let (mut guest, server) = start(640, 480);
    let mut client = Client::view(&server);
    await_picture(&mut client, &guest);
    client.request(true);
    // The guest reports all of its screen, and has drawn nothing, then a pixel.
    guest.report(0, 0, 640, 480);
    guest.fill(100, 100, 1, 1, |_, _, _| 0x00FF_00FF);
    guest.report(0, 0, 640, 480);
    let segment = Sent { x: 96, y: 100, width: 16, height: 1, encoding: RAW };
    assert_eq!(client.update(), [segment]);
    assert!(client.shows(640, 480, &guest.pixels));
}

#[test]
fn test_viewer_gets_only_the_area_that_it_requests() {
    let (mut guest, server) = start(320, 240);
    let mut client = Client::view(&server);
    await_picture(&mut client, &guest);
    client.request_area(true, [0, 0, 160, 240]);
    guest.fill(200, 0, 20, 20, |_, _, _| 0x0000_FF00);
    guest.report(200, 0, 20, 20);
    guest.fill(0, 0, 20, 20, |_, _, _| 0x00FF_0000);
    guest.report(0, 0, 20, 20);
    assert!(client.update().iter().all(|sent| sent.x < 160));
    await_picture(&mut client, &guest);
}

#[test]
fn test_request_that_is_not_incremental_is_answered_without_a_change() {
    let (_guest, server) = start(320, 240);
    let mut client = Client::view(&server);
    for _ in 0..3 {
        client.request(false);
        let sent = client.update();
        assert_eq!((sent[0].width, sent[0].height), (320, 240));
    }
}

#[test]
fn test_equal_viewers_share_encoded_rectangles() {
    let (mut guest, server) = start(320, 240);
    let mut clients: Vec<_> = (0..20).map(|_| Client::view(&server)).collect();
    for client in &mut clients {
        client.set_encodings(&[ZRLE]);
    }
    for _ in 0..5 {
        guest.draw();
        clients.iter_mut().for_each(|client| await_picture(client, &guest));
    }
    let report = server.report();
    assert_eq!(report.viewers, 20);
    // Rectangles of a picture may differ between viewers that ask at different times.
    assert!(report.shared_rectangles > report.rectangles / 2, "{report:?}");
}

#[test]
fn test_mode_changes_reach_viewers_by_one_message_each() {
    let (mut guest, server) = start(1024, 768);
    let mut plain = Client::view(&server);
    plain.set_encodings(&[TIGHT, DESKTOP_SIZE]);
    let mut extended = Client::view(&server);
    extended.set_encodings(&[ZRLE, EXTENDED_DESKTOP_SIZE, DESKTOP_SIZE]);
    for (width, height) in [(1920, 1080), (640, 480), (641, 479), (1024, 768)] {
        guest.set_mode(width, height);
        guest.draw();
        await_picture(&mut plain, &guest);
        await_picture(&mut extended, &guest);
    }
    guest.set_mode(800, 600);
    plain.request(true);
    let resize = Sent { x: 0, y: 0, width: 800, height: 600, encoding: DESKTOP_SIZE };
    assert_eq!(plain.update(), [resize]);
}

#[test]
fn test_mode_changes_under_load_never_send_what_is_outside_of_the_screen() {
    let (mut guest, server) = start(1024, 768);
    let mut clients: Vec<_> = ENCODINGS.iter().map(|_| Client::view(&server)).collect();
    for (client, encoding) in clients.iter_mut().zip(ENCODINGS) {
        client.set_encodings(&[encoding, DESKTOP_SIZE]);
        client.request(true);
    }
    for round in 0..30 {
        let (width, height) = (400 + round * 37 % 900, 300 + round * 53 % 600);
        guest.set_mode(width, height);
        guest.draw();
        for client in &mut clients {
            // The client fails if a rectangle is not on the screen as it knows it.
            client.update();
            client.request(round % 2 == 0);
        }
    }
    for client in &mut clients {
        await_picture(client, &guest);
    }
}

#[test]
fn test_viewer_that_cannot_resize_sees_the_part_of_the_screen_and_black_beyond() {
    let (mut guest, server) = start(100, 80);
    let mut client = Client::view(&server);
    await_picture(&mut client, &guest);
    guest.set_mode(50, 200);
    guest.fill(0, 0, 50, 200, |_, column, row| (column * 256 + row) as u32);
    guest.report(0, 0, 50, 200);
    let mut expected = vec![0; 100 * 80];
    for row in 0..80 {
        expected[row * 100..row * 100 + 50].copy_from_slice(&guest.pixels[row * 50..][..50]);
    }
    client.await_picture(100, 80, &expected);
}

#[test]
fn test_blank_screen_is_black() {
    let (mut guest, server) = start(320, 240);
    guest.draw();
    let mut client = Client::view(&server);
    await_picture(&mut client, &guest);
    guest.close();
    client.await_picture(320, 240, &vec![0; 320 * 240]);
}

#[test]
fn test_guest_that_reports_nothing_is_seen() {
    let (mut guest, server) = start(320, 240);
    let mut client = Client::view(&server);
    await_picture(&mut client, &guest);
    guest.fill(50, 50, 100, 100, |_, column, _| column as u32);
    await_picture(&mut client, &guest);
}

#[test]
fn test_continuous_updates_need_no_request() {
    let (mut guest, server) = start(320, 240);
    let mut client = Client::view(&server);
    client.set_encodings(&[TIGHT, CONTINUOUS_UPDATES, FENCE]);
    client.message();
    client.message();
    assert_eq!(client.others, [vec![150], vec![248, 0, 0, 0, 0x80, 0, 0, 0, 0]]);
    client.send(&[150, 1, 0, 0, 0, 0, 1, 64, 0, 240]);
    for _ in 0..20 {
        guest.draw();
        while !client.shows(320, 240, &guest.pixels) {
            client.message();
        }
    }
    client.send(&[150, 0, 0, 0, 0, 0, 1, 64, 0, 240]);
    while client.others.iter().filter(|other| **other == [150]).count() < 2 {
        client.message();
    }
    client.request(false);
    client.update();
}

#[test]
fn test_fence_is_returned_with_the_flags_that_the_server_knows() {
    let (_guest, server) = start(64, 64);
    let mut client = Client::view(&server);
    client.send(&[248, 0, 0, 0, 0x80, 0, 0xFF, 0xFF, 3, 1, 2, 3]);
    client.message();
    assert_eq!(client.others, [[248, 0, 0, 0, 0, 0, 0, 7, 3, 1, 2, 3]]);
}

#[test]
fn test_colour_map_is_sent_before_pixels_that_need_it() {
    let (mut guest, server) = start(64, 64);
    guest.draw();
    let mut client = Client::view(&server);
    client.set_format(FORMATS[8]);
    await_picture(&mut client, &guest);
    let map = &client.others[0];
    let colour = |index: usize| &map[5 + index * 6..][..6];
    assert_eq!((colour(0), colour(255)), (&[0; 6][..], &[255; 6][..]));
    assert_eq!(colour(7), [255, 255, 0, 0, 0, 0], "the lowest bits are red");
}

#[test]
fn test_pointer_of_the_guest_is_sent_with_its_shape() {
    let (mut guest, server) = start(320, 240);
    let mut plain = Client::view(&server);
    plain.set_encodings(&[RAW, CURSOR]);
    await_picture(&mut plain, &guest);
    assert_eq!(plain.cursor, None, "before the guest has sent a shape the viewer has its own");
    let mut alpha = Client::view(&server);
    alpha.set_encodings(&[RAW, CURSOR, CURSOR_WITH_ALPHA, POINTER_POSITION]);
    guest.shape(2, 1, (1, 0), &[10, 20, 30, 255, 100, 100, 100, 50]);
    guest.point(true, 5, 6);
    while plain.cursor.as_ref().is_none_or(|(sent, _)| sent.width == 0) {
        plain.request(true);
        plain.update();
    }
    let (sent, bytes) = plain.cursor.as_ref().unwrap();
    assert_eq!((sent.x, sent.y, sent.width, sent.height), (1, 0, 2, 1));
    assert_eq!(*bytes, [10, 20, 30, 0, 100, 100, 100, 0, 0b1000_0000]);
    let mut positions = Vec::new();
    while positions.is_empty() || alpha.cursor.as_ref().is_none_or(|(sent, _)| sent.width == 0) {
        alpha.request(true);
        let sent = alpha.update().into_iter();
        positions.extend(sent.filter(|sent| sent.encoding == POINTER_POSITION));
    }
    assert_eq!((positions[0].x, positions[0].y), (5, 6));
    let (_, bytes) = alpha.cursor.as_ref().unwrap();
    assert_eq!(*bytes, [30, 20, 10, 255, 19, 19, 19, 50]);
    guest.point(false, 5, 6);
    while plain.cursor.as_ref().is_some_and(|(sent, _)| sent.width != 0) {
        plain.request(true);
        plain.update();
    }
}

#[test]
fn test_resize_request_sets_the_preferred_resolution_and_is_answered() {
    let (guest, server) = start(320, 240);
    let mut client = Client::view(&server);
    client.set_encodings(&[RAW, EXTENDED_DESKTOP_SIZE]);
    client.request(true);
    let announced = client.update();
    let size = |x, y| Sent { x, y, width: 320, height: 240, encoding: EXTENDED_DESKTOP_SIZE };
    assert!(announced.contains(&size(0, 0)), "{announced:?}");
    assert_eq!(client.screens, [0, 0, 0, 1, 0, 0, 0, 0, 1, 64, 0, 240, 0, 0, 0, 0]);
    let screen = [0, 0, 0, 1, 0, 0, 0, 0, 5, 0, 3, 32, 0, 0, 0, 0];
    let request = |size: [u8; 4]| [&[251, 0][..], &size, &[1, 0], &screen].concat();
    let mut ask = |size| {
        client.send(&request(size));
        client.request(true);
        loop {
            let sent = client.update();
            if let Some(answer) = sent.iter().find(|one| one.x == 1) {
                return answer.y;
            }
            client.request(true);
        }
    };
    assert_eq!(ask([5, 0, 3, 32]), 4, "forwarded to the guest");
    let preferred = guest.screen().preferred_resolution();
    assert_eq!((preferred.width, preferred.height), (1280, 800));
    assert_eq!(ask([5, 0, 3, 33]), 3, "a screen that is smaller");
    assert_eq!(ask([0xFF, 0xFF, 0xFF, 0xFF]), 3);
    assert_eq!(guest.screen().preferred_resolution(), preferred);
}
