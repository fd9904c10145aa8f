use std::io::Read;

use event_manager::{EventManager, SubscriberOps};

use super::super::Null;
use super::*;
use crate::devices::{InterruptLine, PioDevice};

struct NoLine;

impl InterruptLine for NoLine {
    fn pulse(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_level(&self, _high: bool) -> io::Result<()> {
        Ok(())
    }
}

/// A port with its clients, and an event loop that runs when a test says so.
struct Rig {
    hub: SerialHub,
    port: Arc<SerialPort>,
    events: EventManager<Box<dyn MutEventSubscriber>>,
}

impl Rig {
    fn new() -> Self {
        let hub = SerialHub::new().unwrap();
        let output = hub.output(Arc::new(Mutex::new(Null)));
        let port = Arc::new(SerialPort::new(Arc::new(NoLine), output).unwrap());
        let mut events = EventManager::new().unwrap();
        let server: Box<dyn MutEventSubscriber> = Box::new(hub.server(Arc::clone(&port)).unwrap());
        events.add_subscriber(server);
        Rig { hub, port, events }
    }

    /// Handles events until none is left.
    fn turn(&mut self) {
        while self.events.run_with_timeout(0).unwrap() > 0 {}
    }

    fn attach(&mut self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.hub.attach(ours).unwrap();
        self.turn();
        theirs.set_nonblocking(true).unwrap();
        theirs
    }

    fn print(&mut self, text: &[u8]) {
        for byte in text {
            self.port.write(0, *byte);
        }
    }

    /// Returns what the guest reads.
    fn typed(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.port.read(5) & 1 != 0 {
            bytes.push(self.port.read(0));
        }
        bytes
    }
}

/// Returns all that a client can read now.
fn read(client: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = client.read_to_end(&mut bytes);
    bytes
}

#[test]
fn test_clients_see_the_old_output_and_then_the_same_new_output() {
    let mut rig = Rig::new();
    rig.print(b"booted\r\n");
    let mut one = rig.attach();
    rig.print(b"login: ");
    rig.turn();
    let mut other = rig.attach();
    rig.print(b"root");
    rig.turn();
    assert_eq!(read(&mut one), b"booted\r\nlogin: root");
    assert_eq!(read(&mut other), b"booted\r\nlogin: root");
}

#[test]
fn test_input_of_all_clients_reaches_the_guest() {
    let mut rig = Rig::new();
    let (mut one, mut other) = (rig.attach(), rig.attach());
    one.write_all(b"ls\n").unwrap();
    rig.turn();
    other.write_all(b"pwd\n").unwrap();
    rig.turn();
    assert_eq!(rig.typed(), b"ls\npwd\n");
}

#[test]
fn test_input_beyond_the_ports_buffer_waits_for_the_guest_without_spinning() {
    let mut rig = Rig::new();
    let mut client = rig.attach();
    let room = rig.port.room();
    let text = vec![b'x'; 3 * room];
    client.write_all(&text).unwrap();
    // Ends, although bytes wait.
    rig.turn();
    let mut typed = 0;
    for _ in 0..3 {
        typed += rig.typed().len();
        rig.turn();
    }
    assert_eq!(typed + rig.typed().len(), text.len());
}

#[test]
fn test_client_that_reads_nothing_delays_nobody_and_skips_to_the_newest_output() {
    let mut rig = Rig::new();
    let (mut slow, mut other) = (rig.attach(), rig.attach());
    let mut seen = 0;
    // Much more than a socket's buffer.
    let text = vec![b'.'; 32 << 10];
    for _ in 0..40 {
        rig.print(&text);
        rig.turn();
        seen += read(&mut other).len();
    }
    assert_eq!(seen, 40 * (32 << 10));
    rig.print(b"end");
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"end") {
        rig.turn();
        let more = read(&mut slow);
        assert!(!more.is_empty());
        bytes.extend(more);
    }
    assert!(bytes.len() < seen, "{} of {seen}", bytes.len());
}

#[test]
fn test_client_that_leaves_makes_room_for_another() {
    let mut rig = Rig::new();
    let mut clients: Vec<_> = (0..MAX_CLIENTS).map(|_| rig.attach()).collect();
    assert!(!rig.hub.has_room());
    assert!(rig.hub.attach(UnixStream::pair().unwrap().0).is_err());
    clients.pop();
    rig.turn();
    assert!(rig.hub.has_room());
    rig.attach();
}

#[test]
fn test_client_without_more_input_still_reads() {
    let mut rig = Rig::new();
    let mut client = rig.attach();
    client.write_all(b"uname\n").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    rig.turn();
    assert_eq!(rig.typed(), b"uname\n");
    rig.print(b"Linux\r\n");
    rig.turn();
    assert_eq!(read(&mut client), b"Linux\r\n");
}
