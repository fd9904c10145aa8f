use std::collections::VecDeque;

use proptest::prelude::*;
use tungstenite::protocol::Role;

use super::*;

/// One end of a link in memory whose reads and writes take a limited number of bytes, then would
/// block.
struct End {
    input: VecDeque<u8>,
    output: Vec<u8>,
    read_budget: usize,
    write_budget: usize,
    ended: bool,
}

impl End {
    fn new(input: &[u8]) -> Self {
        let input = input.iter().copied().collect();
        End { input, output: Vec::new(), read_budget: 0, write_budget: 0, ended: false }
    }

    fn allow(&mut self, bytes: usize) {
        (self.read_budget, self.write_budget) = (bytes, bytes);
    }
}

impl Read for End {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.read_budget.min(buffer.len()).min(self.input.len());
        if length == 0 {
            let over = self.ended && self.input.is_empty();
            return if over { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        self.read_budget -= length;
        for (to, from) in buffer.iter_mut().zip(self.input.drain(..length)) {
            *to = from;
        }
        Ok(length)
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.write_budget.min(bytes.len());
        if length == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.write_budget -= length;
        self.output.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the bytes of these messages as a browser sends them.
fn as_browser(messages: &[Message]) -> Vec<u8> {
    let mut end = End::new(&[]);
    end.allow(usize::MAX);
    let mut browser = WebSocket::from_raw_socket(end, Role::Client, None);
    for message in messages {
        browser.send(message.clone()).unwrap();
    }
    browser.into_inner().output
}

/// Returns the payload of the binary messages in the bytes that a browser received.
fn binary(bytes: &[u8]) -> Vec<u8> {
    let mut end = End::new(bytes);
    end.allow(usize::MAX);
    let mut browser = WebSocket::from_raw_socket(end, Role::Client, None);
    let mut payload = Vec::new();
    while let Ok(message) = browser.read() {
        if let Message::Binary(part) = message {
            payload.extend_from_slice(&part);
        }
    }
    payload
}

fn bridge(client: End, stream: End) -> Bridge<End, End> {
    let config = WebSocketConfig::default().write_buffer_size(0).max_write_buffer_size(1 << 20);
    Bridge::new(WebSocket::from_raw_socket(client, Role::Server, Some(config)), stream)
}

/// Gives both sides a budget in turn until nothing moves any more. A message of which only a part
/// has left does not count as a move, so there are many turns without one.
fn run_with(bridge: &mut Bridge<End, End>, budgets: &[usize]) -> io::Result<Progress> {
    let mut idle = 0;
    for budget in budgets.iter().cycle() {
        bridge.websocket.get_mut().allow(*budget);
        bridge.stream.allow(*budget);
        match bridge.progress()? {
            Progress::Ended => return Ok(Progress::Ended),
            Progress::Moved => idle = 0,
            Progress::Nothing => idle += 1,
        }
        if idle > 5000 {
            return Ok(Progress::Nothing);
        }
    }
    Ok(Progress::Nothing)
}

proptest! {
    #[test]
    fn test_bytes_arrive_unchanged_in_both_directions_whatever_the_sides_take(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
        answer in prop::collection::vec(any::<u8>(), 0..2000),
        budgets in prop::collection::vec(1_usize..200, 1..6),
    ) {
        let sent = messages.iter().map(|part| Message::binary(part.clone()));
        let sent: Vec<Message> = sent.collect();
        let mut bridge = bridge(End::new(&as_browser(&sent)), End::new(&answer));
        prop_assert_eq!(run_with(&mut bridge, &budgets).unwrap(), Progress::Nothing);
        prop_assert_eq!(&bridge.stream.output, &messages.concat());
        prop_assert_eq!(binary(&bridge.websocket.get_ref().output), answer);
    }

    /// Bytes that are no WebSocket end the connection and reach no one.
    #[test]
    fn test_any_bytes_of_a_browser_neither_hang_nor_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        budget in 1_usize..50,
    ) {
        let mut bridge = bridge(End::new(&bytes), End::new(b"screen"));
        let _ = run_with(&mut bridge, &[budget]);
        prop_assert!(bridge.stream.output.len() <= bytes.len());
    }
}

#[test]
fn test_end_of_the_stream_closes_the_websocket_after_its_last_bytes() {
    let mut stream = End::new(b"last words");
    stream.ended = true;
    let mut bridge = bridge(End::new(&[]), stream);
    assert_eq!(run_with(&mut bridge, &[7]).unwrap(), Progress::Ended);
    let sent = &bridge.websocket.get_ref().output;
    assert_eq!(binary(sent), b"last words");
    assert!(sent.windows(2).any(|part| part == [0x03, 0xE8]), "code 1000");
}

#[test]
fn test_browser_that_leaves_ends_the_bridge() {
    let mut bridge = bridge(End::new(&as_browser(&[Message::Close(None)])), End::new(&[]));
    assert_eq!(run_with(&mut bridge, &[7]).unwrap(), Progress::Ended);
}

#[test]
fn test_text_message_is_refused_with_a_close_code() {
    let mut bridge = bridge(End::new(&as_browser(&[Message::text("hello")])), End::new(&[]));
    assert_eq!(run_with(&mut bridge, &[100]).unwrap(), Progress::Ended);
    assert!(bridge.stream.output.is_empty());
    let sent = &bridge.websocket.get_ref().output;
    assert!(sent.windows(2).any(|part| part == [0x03, 0xEB]), "code 1003");
}

#[test]
fn test_ping_is_answered() {
    let ping = as_browser(&[Message::Ping("x".into())]);
    let mut bridge = bridge(End::new(&ping), End::new(&[]));
    assert_eq!(run_with(&mut bridge, &[100]).unwrap(), Progress::Nothing);
    assert_eq!(bridge.websocket.get_ref().output, [0x8A, 1, b'x']);
}

#[test]
fn test_browser_that_takes_nothing_stops_the_reading_of_the_stream() {
    let mut bridge = bridge(End::new(&[]), End::new(&vec![7; 10 * CHUNK_BYTES]));
    bridge.stream.allow(usize::MAX);
    for _ in 0..20 {
        bridge.progress().unwrap();
    }
    assert!(bridge.is_stalled());
    assert_eq!(bridge.stream.input.len(), 9 * CHUNK_BYTES, "one message waits");
    assert_eq!(bridge.interest(), (EventSet::IN | EventSet::OUT, EventSet::empty()));
}
