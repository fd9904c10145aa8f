//! Connections in both directions: opened, used, half closed, closed (hvsock-vpci A7).

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use synthvm_sockets::protocol::service_of;
use vmbus_loopback::bare::BareChannel;
use vmbus_protocol::Guid;
use vmbus_protocol::message::MessageType;

use common::{
    LONG, Machine, PORT, pattern, read_line, receive, receive_all, send, try_receive, try_send,
};

// A7.1: through rings that are far smaller than the data.
#[test]
fn test_guest_connects_and_an_echo_of_megabytes_is_identical() {
    let mut machine = Machine::new();
    let (mut channel, mut stream) = machine.pair(6);
    let echo = thread::spawn(move || {
        let mut bytes = [0; 5000];
        loop {
            match stream.read(&mut bytes).unwrap() {
                0 => return,
                len => stream.write_all(&bytes[..len]).unwrap(),
            }
        }
    });
    let sent = pattern(1, 8 << 20);
    let (mut received, mut at) = (Vec::new(), 0);
    let mut length = 1;
    while received.len() < sent.len() {
        length = length * 5 % 4093;
        let end = (at + length).min(sent.len());
        if at < end && try_send(&mut channel, &sent[at..end]) {
            at = end;
        }
        while let Some(data) = try_receive(&mut channel) {
            assert!(!data.is_empty() && data.len() <= 16_384);
            received.extend(data);
        }
    }
    assert!(received == sent);
    send(&mut channel, &[]);
    assert_eq!(receive_all(&mut { channel }), []);
    echo.join().unwrap();
    let report = machine.report();
    assert_eq!((report.bytes_to_host, report.bytes_to_guest), (8 << 20, 8 << 20));
    assert_eq!((report.from_guest, report.broken), (1, 0));
}

// A7.2
#[test]
fn test_request_without_listener_is_refused_and_leaves_nothing() {
    let mut machine = Machine::new();
    for service in [service_of(PORT), Guid::new(1, 2, 3, [4; 8])] {
        let endpoint = machine.endpoint();
        machine.post_connect(endpoint, service);
        let result = machine.guest.expect(MessageType::TlConnectResult);
        assert_eq!(result[..16], endpoint.to_bytes());
        assert_eq!(result[16..32], service.to_bytes());
        assert_eq!(result[32..36], 0xC000_0236_u32.to_le_bytes());
    }
    // The program that had the socket has ended.
    drop(machine.listen(PORT));
    let endpoint = machine.endpoint();
    machine.post_connect(endpoint, service_of(PORT));
    machine.guest.expect(MessageType::TlConnectResult);
    assert_eq!(machine.report().no_listener, 3);
    assert!(machine.guest.offers.is_empty());
    machine.assert_empty();
}

// A7.3
#[test]
fn test_host_connects_with_a_line_and_data_behind_it_arrives() {
    let mut machine = Machine::new();
    let mut stream = machine.dial(PORT);
    stream.write_all(b"hello").unwrap();
    let offer = machine.next_offer();
    assert_eq!((offer.class, offer.user_defined[4]), (service_of(PORT), 1));
    let mut channel = machine.guest.open(offer, 4);
    let [a, b, c, d, ..] = offer.instance.to_bytes();
    assert_eq!(read_line(&stream), format!("OK {}\n", u32::from_le_bytes([a, b, c, d])));
    assert_eq!(receive(&mut channel), b"hello");
    send(&mut channel, b"world");
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"world");
    drop(stream);
    assert_eq!(receive_all(&mut channel), []);
    machine.await_end(channel);
    machine.assert_empty();
    assert_eq!(machine.report().from_host, 1);
}

// A7.3: no program of the guest listens.
#[test]
fn test_host_gets_an_end_without_ok_if_the_guest_does_not_open_in_time() {
    let mut machine = Machine::with_timeouts([Duration::from_millis(1), LONG]);
    let stream = machine.dial(PORT);
    let offer = machine.next_offer();
    assert_eq!(read_line(&stream), "");
    machine.await_rescind(offer.relid);
    machine.guest.release(offer.relid);
    machine.assert_empty();
    assert_eq!(machine.report().unanswered, 1);
}

// A7.4
#[test]
fn test_each_end_closes_its_half_and_still_receives() {
    let mut machine = Machine::new();
    let (mut channel, mut stream) = machine.pair(4);
    send(&mut channel, b"last");
    send(&mut channel, &[]);
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"last");
    let answer = pattern(2, 1 << 20);
    let expected = answer.clone();
    let writer = thread::spawn(move || {
        stream.write_all(&answer).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream
    });
    assert!(receive_all(&mut channel) == expected);
    machine.await_end(channel);
    drop(writer.join().unwrap());

    let (mut channel, stream) = machine.pair(4);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(receive(&mut channel), []);
    let sent = pattern(3, 1 << 20);
    let expected = sent.len();
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        (&stream).read_to_end(&mut all).unwrap();
        all
    });
    for chunk in sent.chunks(2000) {
        while !try_send(&mut channel, chunk) {
            thread::yield_now();
        }
    }
    while !try_send(&mut channel, &[]) {
        thread::yield_now();
    }
    machine.await_end(channel);
    let received = reader.join().unwrap();
    assert!(received.len() == expected && received == sent);
    machine.assert_empty();
}

/// Sends frames until neither the socket nor the ring takes more. Returns the number of bytes.
fn fill(machine: &Machine, channel: &mut BareChannel) -> usize {
    let chunk = [7; 4000];
    let mut sent = 0;
    loop {
        let before = machine.report().bytes_to_host;
        if try_send(channel, &chunk) {
            sent += chunk.len();
            continue;
        }
        machine.guest.bus.wait_until_idle();
        thread::yield_now();
        if machine.report().bytes_to_host == before {
            return sent;
        }
    }
}

#[test]
fn test_program_that_has_ended_its_half_and_reads_late_gets_all_bytes() {
    let mut machine = Machine::new();
    let (mut channel, mut stream) = machine.pair(4);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(receive(&mut channel), []);
    let sent = fill(&machine, &mut channel);
    stream.read_exact(&mut vec![0; sent]).unwrap();
    send(&mut channel, &[]);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    machine.await_end(channel);
}

// A7.5
#[test]
fn test_program_that_ends_while_bytes_wait_ends_the_connection() {
    let mut machine = Machine::new();
    let (mut channel, stream) = machine.pair(4);
    fill(&machine, &mut channel);
    drop(stream);
    assert_eq!(receive_all(&mut channel), []);
    machine.await_end(channel);
    machine.assert_empty();
}

// A7.5: the guest is the last to end its direction. A rescind before that would be an error for its
// write that the program has answered.
#[test]
fn test_program_that_answers_and_closes_is_rescinded_when_the_guest_has_ended_too() {
    let mut machine = Machine::with_timeouts([LONG; 2]);
    let (mut channel, mut stream) = machine.pair(4);
    stream.write_all(b"answer").unwrap();
    drop(stream);
    assert_eq!(receive_all(&mut channel), b"answer");
    send(&mut channel, b"too late");
    // A rescind would arrive before this refusal.
    let endpoint = machine.endpoint();
    machine.post_connect(endpoint, service_of(PORT));
    machine.guest.expect(MessageType::TlConnectResult);
    assert_eq!(machine.report().open, 1);
    send(&mut channel, &[]);
    machine.await_end(channel);
    machine.assert_empty();
}

#[test]
fn test_guest_that_does_not_end_a_closed_connection_in_time_is_rescinded() {
    let mut machine = Machine::with_timeouts([LONG, Duration::from_millis(1)]);
    let (mut channel, stream) = machine.pair(4);
    drop(stream);
    assert_eq!(receive_all(&mut channel), []);
    machine.await_end(channel);
    machine.assert_empty();
}

// A7.5: the guest closes the channel, as a program of the guest that was killed.
#[test]
fn test_guest_that_closes_gets_one_rescind_and_the_program_its_last_bytes() {
    let mut machine = Machine::new();
    let (mut channel, mut stream) = machine.pair(4);
    send(&mut channel, b"bytes");
    machine.guest.post_close(channel.relid);
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"bytes");
    machine.await_rescind(channel.relid);
    machine.guest.teardown(channel.relid, channel.gpadl);
    machine.guest.release(channel.relid);
    machine.assert_empty();
}

// A7.6
#[test]
fn test_hundreds_of_connections_one_after_the_other_use_the_same_relid() {
    let mut machine = Machine::new();
    let listener = machine.listen(PORT);
    for round in 0..300_u32 {
        let offer = machine.connect(PORT);
        assert_eq!(offer.relid, 1, "round {round}");
        let mut channel = machine.guest.open_at(offer, common::RINGS, 3);
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&round.to_le_bytes()).unwrap();
        assert_eq!(receive(&mut channel), round.to_le_bytes());
        if round % 2 == 0 {
            send(&mut channel, &[]);
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
        drop(stream);
        assert_eq!(receive_all(&mut channel), []);
        if round % 2 != 0 {
            send(&mut channel, &[]);
        }
        machine.await_end(channel);
        machine.assert_empty();
    }
    assert_eq!(machine.report().from_guest, 300);
}

// A7.6, A7.8, A7.10: one peer does not read, and holds up no other.
#[test]
fn test_connections_in_parallel_carry_their_own_bytes_past_one_that_stalls() {
    const COUNT: usize = 100;
    const BYTES: usize = 100_000;
    let mut machine = Machine::new();
    let listener = machine.listen(PORT);
    let mut channels: Vec<_> = (0..=COUNT)
        .map(|_| {
            let endpoint = machine.endpoint();
            machine.post_connect(endpoint, service_of(PORT));
        })
        .collect::<Vec<_>>()
        .into_iter()
        .enumerate()
        .map(|(index, ())| {
            let offer = machine.next_offer();
            machine.guest.open_at(offer, common::RINGS + index * 6, 3)
        })
        .collect();
    let streams: Vec<UnixStream> = (0..=COUNT).map(|_| listener.accept().unwrap().0).collect();
    // The programs echo; they are one thread each. The first one neither reads nor writes.
    let mut streams = streams.into_iter();
    let stalled = streams.next().unwrap();
    let programs: Vec<_> = streams
        .map(|mut stream| {
            thread::spawn(move || {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                stream.write_all(&all).unwrap();
            })
        })
        .collect();
    let mut stuck = channels.remove(0);
    while try_send(&mut stuck, &[1; 4000]) {}
    let data: Vec<_> = (0..COUNT).map(|seed| pattern(seed as u64, BYTES)).collect();
    let mut at = [0; COUNT];
    let mut ended = [false; COUNT];
    while ended.iter().any(|ended| !ended) {
        for (index, channel) in channels.iter_mut().enumerate() {
            while at[index] < BYTES {
                let end = (at[index] + 3000).min(BYTES);
                if !try_send(channel, &data[index][at[index]..end]) {
                    break;
                }
                at[index] = end;
            }
            if at[index] == BYTES && !ended[index] {
                ended[index] = try_send(channel, &[]);
            }
        }
    }
    let mut received = vec![Vec::new(); COUNT];
    let mut done = [false; COUNT];
    while done.iter().any(|done| !done) {
        for (index, channel) in channels.iter_mut().enumerate() {
            while let Some(bytes) = try_receive(channel) {
                done[index] |= bytes.is_empty();
                received[index].extend(bytes);
            }
        }
    }
    for program in programs {
        program.join().unwrap();
    }
    assert!(received == data);
    drop(stalled);
    machine.await_report(|report| report.open == 0);
    assert_eq!(machine.report().broken, 0);
}

// A7.11
#[test]
fn test_endpoint_in_use_is_refused_and_the_first_connection_unaffected() {
    let mut machine = Machine::new();
    let listener = machine.listen(PORT);
    let offer = machine.connect(PORT);
    machine.post_connect(offer.instance, offer.class);
    machine.guest.expect(MessageType::TlConnectResult);
    let mut channel = machine.guest.open(offer, 4);
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"first").unwrap();
    assert_eq!(receive(&mut channel), b"first");
}

// A7.12
#[test]
fn test_reset_of_the_machine_ends_the_programs_connections_and_the_next_guest_connects() {
    let mut machine = Machine::new();
    let (_channel, mut stream) = machine.pair(4);
    let waiting = machine.dial(PORT);
    machine.next_offer();
    machine.guest.bus.reset();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert_eq!(read_line(&waiting), "");
    machine.assert_empty();
    machine.guest.reconnect();
    let (mut channel, mut stream) = machine.pair(4);
    stream.write_all(b"again").unwrap();
    assert_eq!(receive(&mut channel), b"again");
}

#[test]
fn test_paused_bus_moves_no_byte_and_loses_none() {
    let mut machine = Machine::new();
    let (mut channel, mut stream) = machine.pair(4);
    machine.guest.bus.pause();
    stream.write_all(b"later").unwrap();
    send(&mut channel, b"also");
    let second = machine.dial(PORT);
    assert!(channel.try_receive().is_none());
    assert_eq!(machine.report().bytes_to_host, 0);
    machine.guest.bus.resume();
    assert_eq!(receive(&mut channel), b"later");
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"also");
    let offer = machine.next_offer();
    let _second_channel = machine.guest.open(offer, 4);
    assert!(read_line(&second).starts_with("OK "));
}

// The bus is saved with an open connection and one that the guest has not opened.
#[test]
fn test_restored_guest_sees_the_end_of_its_connections_and_connects_again() {
    let mut machine = Machine::new();
    let (channel, mut stream) = machine.pair(4);
    let _waiting = machine.dial(PORT);
    let offered = machine.next_offer();
    machine.migrate();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the program's connection has ended too");
    let mut ended = [0; 2].map(|_| {
        let body = machine.guest.expect(MessageType::RescindChannelOffer);
        u32::from_le_bytes(body[..4].try_into().unwrap())
    });
    ended.sort_unstable();
    assert_eq!(ended, [channel.relid, offered.relid]);
    machine.guest.post_close(channel.relid);
    ended.into_iter().for_each(|relid| machine.guest.release(relid));
    machine.assert_empty();
    let (mut channel, mut stream) = machine.pair(4);
    stream.write_all(b"again").unwrap();
    assert_eq!(receive(&mut channel), b"again");
}
