//! Areas that have moved are copied by viewers that support CopyRect, and all viewers see the same.

mod common;

use common::client::{CONTINUOUS_UPDATES, COPY_RECT, Client, FORMATS, RAW, Sent, TIGHT, ZRLE};
use common::guest::Guest;
use synthvm_display::{DisplayOptions, DisplayServer};

/// The screen of random changes.
const SIZE: (usize, usize) = (400, 300);

fn start() -> (Guest, DisplayServer) {
    start_with(640, 480)
}

fn start_with(width: usize, height: usize) -> (Guest, DisplayServer) {
    let mut guest = Guest::new(width, height);
    guest.write([0, 0, width, height]);
    guest.report(0, 0, width, height);
    let server = guest.server(DisplayOptions::default());
    (guest, server)
}

fn view(server: &DisplayServer, guest: &mut Guest, encodings: &[i32]) -> Client {
    let mut client = Client::view(server);
    client.set_encodings(encodings);
    await_picture(&mut client, guest);
    // After its first report a screen is read only where the guest reports.
    guest.fill(0, 0, 1, 1, |_, _, _| 0x0012_3456);
    guest.report(0, 0, 1, 1);
    await_picture(&mut client, guest);
    client
}

fn await_picture(client: &mut Client, guest: &Guest) {
    client.await_picture(guest.width, guest.height, &guest.pixels);
}

fn copy(x: u16, y: u16, width: u16, height: u16) -> Sent {
    Sent { x, y, width, height, encoding: COPY_RECT }
}

#[test]
fn test_scrolled_text_is_copied_and_only_the_new_line_sent() {
    let (mut guest, server) = start();
    let mut client = view(&server, &mut guest, &[RAW, COPY_RECT]);
    client.request(true);
    guest.scroll([0, 0, 640, 480], 16);
    let sent = client.update();
    assert!(client.shows(640, 480, &guest.pixels));
    assert_eq!(sent[0], copy(0, 0, 640, 464));
    assert!(sent[1..].iter().all(|one| one.encoding == RAW && one.y >= 464), "{sent:?}");
    client.request(true);
    guest.scroll([64, 40, 320, 400], -32);
    let sent = client.update();
    assert!(client.shows(640, 480, &guest.pixels));
    assert_eq!(sent[0], copy(64, 72, 320, 368));
    assert!(sent[1..].iter().all(|one| one.y >= 40 && one.y + one.height <= 72), "{sent:?}");
    assert_eq!(server.report().copied_rectangles, 2);
}

#[test]
fn test_text_that_scrolls_beside_other_changes_is_copied() {
    let (mut guest, server) = start();
    let mut client = view(&server, &mut guest, &[ZRLE, COPY_RECT]);
    client.request(true);
    // A clock, a cursor that blinks within the text, and a line that is drawn over.
    guest.write([600, 0, 40, 10]);
    guest.shift([160, 116, 320, 284], -16);
    guest.write([160, 384, 320, 16]);
    guest.fill(300, 200, 8, 16, |_, _, _| 0x00FF_FF00);
    guest.fill(160, 300, 320, 5, |_, _, _| 0x00FF_0000);
    guest.report(0, 0, 640, 480);
    let sent = client.update();
    assert!(client.shows(640, 480, &guest.pixels));
    assert_eq!(
        sent[..3],
        [copy(160, 100, 320, 100), copy(160, 216, 320, 84), copy(160, 305, 320, 79)]
    );
}

#[test]
fn test_viewer_that_does_not_announce_copies_gets_none() {
    let (mut guest, server) = start();
    let mut plain = view(&server, &mut guest, &[ZRLE]);
    let mut copies = view(&server, &mut guest, &[COPY_RECT, ZRLE]);
    for _ in 0..5 {
        guest.scroll([0, 0, 640, 480], 16);
        for client in [&mut copies, &mut plain] {
            await_picture(client, &guest);
        }
    }
    copies.request(true);
    copies.set_encodings(&[ZRLE]);
    copies.request(false);
    guest.scroll([0, 0, 640, 480], 16);
    while !copies.shows(640, 480, &guest.pixels) {
        copies.update();
        copies.request(true);
    }
    assert!(server.report().copied_rectangles >= 1);
    let before = server.report().copied_rectangles;
    guest.scroll([0, 0, 640, 480], 16);
    await_picture(&mut copies, &guest);
    assert_eq!(server.report().copied_rectangles, before);
}

#[test]
fn test_viewer_that_skips_frames_gets_all_moves_in_their_order() {
    let (mut guest, server) = start();
    let mut slow = view(&server, &mut guest, &[RAW, COPY_RECT]);
    let mut fast = view(&server, &mut guest, &[RAW, COPY_RECT]);
    // Each is read for the fast viewer; the slow one has none of them.
    let mut scroll = |guest: &mut Guest, count: usize| {
        for round in 0..count {
            guest.scroll([0, 0, 640, 480], [16, -7, 40][round % 3]);
            await_picture(&mut fast, guest);
        }
    };
    scroll(&mut guest, 6);
    slow.request(true);
    let sent = slow.update();
    assert!(slow.shows(640, 480, &guest.pixels));
    assert_eq!(sent.iter().filter(|one| one.encoding == COPY_RECT).count(), 6);
    // So many that pixels are cheaper.
    scroll(&mut guest, 40);
    slow.request(true);
    let sent = slow.update();
    assert!(slow.shows(640, 480, &guest.pixels));
    assert!(sent.iter().filter(|one| one.encoding == COPY_RECT).count() <= 32);
}

#[test]
fn test_move_beyond_the_requested_area_is_sent_as_pixels() {
    let (mut guest, server) = start();
    let mut client = view(&server, &mut guest, &[RAW, COPY_RECT]);
    client.request_area(true, [0, 0, 640, 300]);
    guest.scroll([0, 0, 640, 480], 16);
    let sent = client.update();
    assert!(sent.iter().all(|one| one.encoding == RAW && one.y + one.height <= 300), "{sent:?}");
    await_picture(&mut client, &guest);
}

#[test]
fn test_moves_wait_for_no_format_but_their_own() {
    let (mut guest, server) = start();
    let mut client = view(&server, &mut guest, &[RAW, COPY_RECT]);
    let mut other = view(&server, &mut guest, &[RAW, COPY_RECT]);
    for format in FORMATS {
        // The move waits for this viewer when it sets the format.
        guest.scroll([0, 0, 640, 480], 16);
        await_picture(&mut other, &guest);
        client.set_format(format);
        client.request(false);
        client.update();
        assert!(client.shows(640, 480, &guest.pixels), "{format:?}");
    }
}

/// Something that a guest does to its screen.
fn change(guest: &mut Guest) {
    let width = 16 + guest.below(SIZE.0 - 16);
    let height = 40 + guest.below(SIZE.1 - 40);
    let [x, y] = [SIZE.0 - width, SIZE.1 - height].map(|limit| guest.below(limit + 1));
    let rows = 1 + guest.below(height.min(64) - 1).cast_signed();
    match guest.below(8) {
        0 => guest.draw(),
        1 => guest.scroll([0, 0, SIZE.0, SIZE.1], rows),
        2 => guest.scroll([0, 0, SIZE.0, SIZE.1], -rows),
        3 => guest.scroll([x, y, width, height], rows),
        4 => guest.scroll([x, y, width, height], -rows),
        // A window that leaves its picture behind, and of which only a part is reported.
        5 => {
            let height = height - rows.unsigned_abs();
            guest.shift([x, y, width, height], rows);
            guest.report(x, y, width, height);
        }
        // Text that scrolls twice, with a drawing in between and without a report in between.
        6 => {
            guest.shift([x, y + 20, width, height - 20], -20);
            guest.fill(x, y, 16, 30, |guest, _, _| guest.below(1 << 24) as u32);
            guest.scroll([0, 0, SIZE.0, SIZE.1], 5);
        }
        // Nothing is reported until the end of the round.
        _ => guest.write([x, y, width, height]),
    }
}

#[test]
fn test_viewers_of_each_kind_see_the_same_after_random_scrolls_moves_and_drawings() {
    let (mut guest, server) = start_with(SIZE.0, SIZE.1);
    let mut clients = Vec::new();
    for (at, encoding) in [RAW, ZRLE, TIGHT].into_iter().enumerate() {
        for (format, copies) in [(0, true), (5, true), (8, true), (0, false)] {
            let encodings: &[i32] = if copies { &[encoding, COPY_RECT] } else { &[encoding] };
            let mut client = Client::view(&server);
            client.set_encodings(encodings);
            client.set_format(FORMATS[format]);
            await_picture(&mut client, &guest);
            // How often it asks, and whether for all.
            clients.push((client, 1 + at + format % 2, format == 5));
        }
    }
    for round in 0..60 {
        for _ in 0..1 + guest.below(3) {
            change(&mut guest);
        }
        for (client, every, asks_for_parts) in &mut clients {
            if round % *every != 0 {
                continue;
            }
            match *asks_for_parts && round % 2 == 0 {
                true => client.request_area(false, [100, 50, 200, 150]),
                false => client.request(guest.below(10) != 0),
            }
            // Changes may come before, while or after it is answered.
            change(&mut guest);
            if guest.below(4) != 0 {
                guest.report(0, 0, 16, SIZE.1);
                guest.fill(0, 0, 1, 1, |guest, _, _| guest.below(1 << 24) as u32);
                guest.report(0, 0, 1, 1);
            }
        }
        guest.report(0, 0, SIZE.0, SIZE.1);
        for (client, every, _) in &mut clients {
            if round % *every == 0 {
                await_picture(client, &guest);
            }
        }
    }
    clients.iter_mut().for_each(|(client, ..)| await_picture(client, &guest));
    let report = server.report();
    assert!(report.copied_rectangles > 50, "{report:?}");
}

#[test]
fn test_continuous_updates_copy_what_has_moved() {
    let (mut guest, server) = start();
    let mut client = Client::view(&server);
    client.set_encodings(&[RAW, COPY_RECT, CONTINUOUS_UPDATES]);
    client.send(&[150, 1, 0, 0, 0, 0, 2, 128, 1, 224]);
    for _ in 0..10 {
        guest.scroll([0, 0, 640, 480], 16);
        while !client.shows(640, 480, &guest.pixels) {
            client.message();
        }
    }
    assert!(server.report().copied_rectangles > 0);
}
