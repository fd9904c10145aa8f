//! Viewers that do not read, flood, or do not speak the protocol.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::client::{Client, FENCE, RAW, TIGHT, ZRLE, pair, read};
use common::guest::Guest;
use synthvm_display::{DisplayOptions, DisplayServer, Passwords, Security, ServerReport};

fn start(options: DisplayOptions) -> (Guest, DisplayServer) {
    let guest = Guest::new(640, 480);
    let server = guest.server(options);
    (guest, server)
}

fn connect(server: &DisplayServer) -> UnixStream {
    let (mine, theirs) = pair();
    server.add_viewer(theirs, Security::none());
    mine
}

fn await_report(server: &DisplayServer, is_met: impl Fn(&ServerReport) -> bool) {
    while !is_met(&server.report()) {
        std::thread::yield_now();
    }
}

#[test]
fn test_viewer_that_stops_reading_is_dropped_and_delays_no_other() {
    let stall_timeout = Duration::from_millis(300);
    let (mut guest, server) = start(DisplayOptions { stall_timeout, ..Default::default() });
    let mut stalled = Client::connect(connect(&server));
    let mut reading = Client::connect(connect(&server));
    reading.set_encodings(&[TIGHT]);
    while server.report().dropped == 0 {
        // The server may have closed the connection.
        let _ = stalled.try_send(&[3, 0, 0, 0, 0, 0, 2, 128, 1, 224]);
        guest.draw();
        reading.await_picture(640, 480, &guest.pixels);
    }
    assert_eq!(server.report().viewers, 1);
    guest.draw();
    reading.await_picture(640, 480, &guest.pixels);
}

#[test]
fn test_viewer_that_does_not_log_in_is_dropped() {
    let login_timeout = Duration::from_millis(100);
    let (_guest, server) = start(DisplayOptions { login_timeout, ..Default::default() });
    let mut logged_in = Client::connect(connect(&server));
    let mut silent = connect(&server);
    read(&mut silent, 12);
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    assert_eq!(server.report().dropped, 1);
    logged_in.request(false);
    logged_in.update();
}

#[test]
fn test_viewer_beyond_the_limit_is_turned_away() {
    let (_guest, server) = start(DisplayOptions { max_viewers: 2, ..Default::default() });
    let mut first = Client::connect(connect(&server));
    let second = Client::connect(connect(&server));
    assert_eq!(connect(&server).read(&mut [0]).unwrap(), 0);
    assert_eq!(server.report().turned_away, 1);
    drop(second);
    await_report(&server, |report| report.viewers == 1);
    drop(Client::connect(connect(&server)));
    first.request(false);
    first.update();
}

#[test]
fn test_malformed_messages_end_the_connection_and_no_other() {
    let (mut guest, server) = start(DisplayOptions::default());
    let mut other = Client::connect(connect(&server));
    let bad: [&[u8]; 9] = [
        &[99],
        &[255, 77],
        &[2, 0, 0xFF, 0xFF],
        &[6, 0, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF],
        &[6, 0, 0, 0, 0x80, 0, 0, 0],
        &[248, 0, 0, 0, 0, 0, 0, 0, 65],
        &[0, 0, 0, 0, 24, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0],
        &[0, 0, 0, 0, 16, 16, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0],
        &[0, 0, 0, 0, 32, 24, 0, 0, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0],
    ];
    for (index, message) in bad.into_iter().enumerate() {
        let mut client = Client::connect(connect(&server));
        client.send(message);
        // An error if the server left bytes unread.
        let _ = client.read_to_end();
        assert_eq!(server.report().malformed, index as u64 + 1, "{message:?}");
    }
    for greeting in [&b"GET / HTTP/1.1\r\n"[..], b"RFB 003.abc\n", b"RFB 002.000\n"] {
        let before = server.report().malformed;
        let mut stream = connect(&server);
        stream.write_all(greeting).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        assert_eq!(server.report().malformed, before + 1);
    }
    guest.draw();
    other.await_picture(640, 480, &guest.pixels);
}

#[test]
fn test_areas_outside_of_the_screen_have_no_effect() {
    let (mut guest, server) = start(DisplayOptions::default());
    let mut client = Client::connect(connect(&server));
    client.set_encodings(&[ZRLE]);
    for area in [[0xFFFF; 4], [640, 480, 1, 1], [0, 0, 0, 0], [639, 479, 0xFFFF, 0xFFFF]] {
        client.request_area(false, area);
    }
    client.update();
    guest.draw();
    client.await_picture(640, 480, &guest.pixels);
}

#[test]
fn test_flood_of_fences_is_answered_as_far_as_the_viewer_reads() {
    let (mut guest, server) = start(DisplayOptions::default());
    let mut flooding = connect(&server);
    let mut client = Client::connect(flooding.try_clone().unwrap());
    client.set_encodings(&[RAW, FENCE]);
    flooding.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let fence = [&[248, 0, 0, 0, 0x80, 0, 0, 0, 64][..], &[0; 64]].concat();
    let flood = fence.repeat(1000);
    // Ends as the server reads no more.
    while flooding.write_all(&flood).is_ok() {}
    let mut other = Client::connect(connect(&server));
    guest.draw();
    other.await_picture(640, 480, &guest.pixels);
}

#[test]
fn test_server_listens_on_tcp_and_ends_with_its_last_handle() {
    let (mut guest, server) = start(DisplayOptions::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let passwords = Passwords::new("secret", None).unwrap();
    server.listen(listener, Security::none());
    server.clone().listen(
        std::os::unix::net::UnixListener::bind_addr(
            &<std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(
                format!("synthvm-display-{}", std::process::id()),
            )
            .unwrap(),
        )
        .unwrap(),
        Security::passwords(passwords),
    );
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut client = Client::connect(stream);
    guest.draw();
    client.await_picture(640, 480, &guest.pixels);
    drop(server);
    let _ = client.read_to_end();
    while TcpStream::connect(address).is_ok() {
        std::thread::yield_now();
    }
}
