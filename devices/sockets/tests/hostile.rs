//! Bad input of guests and of programs of the host (hvsock-vpci A7: 7, 9, 10).

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use synthvm_sockets::protocol::{data_header, service_of};
use synthvm_sockets::{MAX_CLIENTS, MAX_REQUESTS};
use vmbus_loopback::bare::{BareChannel, GuestRange};
use vmbus_protocol::message::{MessageType, TlConnectRequest};
use vmbus_protocol::{Guid, MessageBuffer};
use vmbus_ring::OutPacket;

use common::{LONG, Machine, PORT, read_line, receive, send};

/// Writes packets that break a connection.
type Bad = fn(&mut BareChannel);

fn write(channel: &mut BareChannel, payload: &[u8]) {
    assert!(channel.try_write(&OutPacket::in_band(0, &[payload])));
}

// A7.7
#[test]
fn test_packet_that_is_no_frame_resets_its_connection_and_no_other() {
    let bad: [Bad; 7] = [
        |channel| write(channel, &[]),
        |channel| write(channel, &data_header(1)),
        |channel| write(channel, &[&data_header(9)[..], &[0; 8]].concat()),
        |channel| write(channel, &data_header(u32::MAX)),
        |channel| write(channel, &[2, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]),
        |channel| channel.send(1, &data_header(0), &[GuestRange::at(1500, 1)]),
        |channel| {
            send(channel, &[]);
            send(channel, b"after the end");
        },
    ];
    let mut machine = Machine::new();
    let (mut other, mut other_stream) = machine.pair(4);
    for (number, write) in bad.iter().enumerate() {
        let (mut channel, mut stream) = machine.pair(4);
        write(&mut channel);
        machine.await_rescind(channel.relid);
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "packet {number}");
        machine.guest.post_close(channel.relid);
        machine.guest.release(channel.relid);
        assert_eq!(machine.report().broken, number as u64 + 1);
    }
    send(&mut other, b"fine");
    let mut bytes = [0; 4];
    other_stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"fine");
}

#[test]
fn test_second_end_of_the_guest_is_no_error() {
    let mut machine = Machine::new();
    let (mut channel, mut stream) = machine.pair(4);
    send(&mut channel, &[]);
    send(&mut channel, &[]);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    stream.write_all(b"still here").unwrap();
    assert_eq!(receive(&mut channel), b"still here");
}

// A7.10: far more requests than wait at a time, none of which has a listener.
#[test]
fn test_flood_of_requests_is_answered_and_leaves_nothing() {
    let mut machine = Machine::new();
    let flood = MAX_REQUESTS as u32 + 1000;
    for number in 0..flood {
        machine.post_connect(service_of(number), service_of(PORT));
        if number % 500 == 499 {
            for _ in 0..500 {
                machine.guest.expect(MessageType::TlConnectResult);
            }
        }
    }
    for _ in 0..flood % 500 {
        machine.guest.expect(MessageType::TlConnectResult);
    }
    let report = machine.report();
    assert_eq!(report.no_listener + report.failed, u64::from(flood));
    machine.assert_empty();
}

// A7.9
#[test]
fn test_request_of_a_wrong_length_is_ignored_and_one_with_a_silo_taken() {
    let mut machine = Machine::new();
    let request = TlConnectRequest { endpoint: service_of(1), service: service_of(PORT) };
    let message = MessageBuffer::new(MessageType::TlConnectRequest, &request);
    let bytes = message.as_bytes();
    let _ = machine.guest.bus.post_message(4, 1, &bytes[..39]);
    let silo = [bytes, &[7; 16]].concat();
    let _ = machine.guest.bus.post_message(4, 1, &silo);
    let result = machine.guest.expect(MessageType::TlConnectResult);
    assert_eq!(result[..16], service_of(1).to_bytes());
    assert_eq!(machine.report().no_listener, 1);
}

#[test]
fn test_program_without_a_valid_request_is_disconnected() {
    let mut machine = Machine::new();
    let path = machine.folder.path("vm");
    for bad in ["HELLO\n", "CONNECT\n", "CONNECT 1 2\n", &"x".repeat(100)] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(bad.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // The bytes that nothing has read are an error of the connection.
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"", "{bad}");
    }
    drop(UnixStream::connect(&path).unwrap());
    machine.await_report(|report| report.bad_requests == 5);
    // A request in pieces is a request.
    let mut stream = UnixStream::connect(&path).unwrap();
    for piece in ["CONN", "ECT 50", "00", "\n"] {
        stream.write_all(piece.as_bytes()).unwrap();
    }
    assert_eq!(machine.next_offer().class, service_of(PORT));
}

#[test]
fn test_programs_that_say_nothing_do_not_keep_others_out() {
    let mut machine = Machine::new();
    let path = machine.folder.path("vm");
    let mut silent: Vec<_> =
        (0..=MAX_CLIENTS).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let stream = machine.dial(PORT);
    let offer = machine.next_offer();
    let _channel = machine.guest.open(offer, 4);
    assert!(read_line(&stream).starts_with("OK "));
    assert_eq!(silent[0].read(&mut [0]).unwrap(), 0, "the oldest is disconnected");
}

// The guest's program has given up: the offer is never opened.
#[test]
fn test_offers_that_the_guest_ignores_or_releases_end_the_programs_connections() {
    let mut machine = Machine::with_timeouts([Duration::from_millis(1), LONG]);
    let listener = machine.listen(PORT);
    for released in [false, true] {
        let offer = machine.connect(PORT);
        let (mut stream, _) = listener.accept().unwrap();
        if !released {
            machine.await_rescind(offer.relid);
        }
        machine.guest.release(offer.relid);
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        machine.assert_empty();
    }
    assert_eq!(machine.report().unanswered, 2);
}

#[test]
fn test_service_with_a_socket_of_its_own_is_reached_by_its_guid() {
    let mut machine = Machine::new();
    let service = Guid::new(0xAA, 2, 3, [4; 8]);
    let path = machine.folder.path(&format!("vm_{service}"));
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let endpoint = machine.endpoint();
    machine.post_connect(endpoint, service);
    let offer = machine.next_offer();
    assert_eq!((offer.class, offer.instance), (service, endpoint));
    let mut channel = machine.guest.open(offer, 4);
    let (mut stream, _) = listener.accept().unwrap();
    send(&mut channel, b"by guid");
    let mut bytes = [0; 7];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"by guid");
    fs::remove_file(path).unwrap();
}

// The program is slow to accept: its queue of connections is full.
#[test]
fn test_request_for_a_program_whose_queue_is_full_waits_for_it() {
    let mut machine = Machine::new();
    let listener = machine.listen(PORT);
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let path = machine.folder.path(&format!("vm_{PORT}"));
    let _first = UnixStream::connect(&path).unwrap();
    let endpoint = machine.endpoint();
    machine.post_connect(endpoint, service_of(PORT));
    // The requests of another service are answered meanwhile.
    machine.post_connect(service_of(1), service_of(PORT + 1));
    let result = machine.guest.expect(MessageType::TlConnectResult);
    assert_eq!(result[..16], service_of(1).to_bytes());
    drop(listener.accept().unwrap());
    let offer = machine.next_offer();
    assert_eq!(offer.instance, endpoint);
    let mut channel = machine.guest.open(offer, 4);
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"late").unwrap();
    assert_eq!(receive(&mut channel), b"late");
}
