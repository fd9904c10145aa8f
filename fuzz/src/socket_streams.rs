//! A connection of host sockets: a pump between the rings of a hostile guest and a Unix socket. As
//! long as the guest keeps to the rules, the bytes of both directions are compared.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use synthvm_sockets::protocol::{Frame, Target, data_header, frame, parse_request};
use synthvm_sockets::pump::{BareRings, Counters, Pump, Scratch, Turn};
use vm_memory::{Bytes, GuestAddress};
use vmbus_ring::{Incoming, Mode, OutPacket, Outgoing, PacketKind, PlainMemory, RingMemory};

use crate::input::Input;

/// Most steps of one input.
const MAX_STEPS: usize = 64;
/// Pages of a ring: control, and data for less than a frame of maximum length.
const PAGES: usize = 4;

/// The memory of both rings, each mirrored and paged.
struct Fixture {
    memory: PlainMemory,
    rings: [[RingMemory; 2]; 2],
}

thread_local! {
    static FIXTURE: RefCell<Fixture> = RefCell::new({
        let memory = PlainMemory::new(2 * PAGES).unwrap();
        let map = |mode| [0, PAGES].map(|first| memory.ring_at(first, PAGES, mode).unwrap());
        let rings = [map(Mode::Mirrored), map(Mode::Paged)];
        Fixture { memory, rings }
    });
}

/// The guest, the program of the host, and the bytes that each has to receive.
struct World<'a> {
    memory: &'a PlainMemory,
    to_host: Outgoing,
    to_guest: Incoming,
    program: UnixStream,
    for_program: VecDeque<u8>,
    for_guest: VecDeque<u8>,
    /// The guest has broken a rule: nothing is compared any more.
    is_broken: bool,
    next: u8,
}

/// Layout: a byte for the mode of the rings, then steps: an operation and its arguments. All bytes
/// are also a request of a program.
pub fn run(data: &[u8]) {
    request(data);
    FIXTURE.with_borrow_mut(|fixture| {
        let mut input = Input::new(data);
        let [up, down] = &fixture.rings[usize::from(input.u8() & 1)];
        up.reset();
        down.reset();
        let host = BareRings {
            incoming: Incoming::new(up.clone()).unwrap(),
            outgoing: Outgoing::new(down.clone()).unwrap(),
            is_closing: false,
        };
        let (socket, program) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        program.set_nonblocking(true).unwrap();
        let mut world = World {
            memory: &fixture.memory,
            to_host: Outgoing::new(up.clone()).unwrap(),
            to_guest: Incoming::new(down.clone()).unwrap(),
            program,
            for_program: VecDeque::new(),
            for_guest: VecDeque::new(),
            is_broken: false,
            next: 0,
        };
        let events = socket.try_clone().unwrap();
        let mut pump = Pump::new(host, socket);
        let (mut scratch, counters) = (Scratch::default(), Counters::default());
        for _ in 0..MAX_STEPS {
            if input.is_empty() {
                break;
            }
            world.step(&mut input, &mut pump);
            pump.socket_events(poll(&events));
            match pump.turn(&mut scratch, &counters) {
                Ok(Turn::Idle | Turn::More | Turn::Lingering) => {}
                Ok(Turn::Ended) => break,
                Err(fault) => {
                    assert!(world.is_broken, "a sound guest was reset: {fault}");
                    break;
                }
            }
        }
        drop(pump);
        drop(events);
        world.read_program(usize::MAX);
        world.read_guest();
    });
}

impl World<'_> {
    fn step(&mut self, input: &mut Input<'_>, pump: &mut Pump<BareRings>) {
        match input.u8() % 9 {
            0 | 1 => self.send(usize::from(input.u16())),
            2 => {
                self.is_broken |= self.write(&data_header(0), &[]);
            }
            3 => {
                // Any header before any number of bytes.
                let header = input.u64().to_le_bytes();
                let bytes = vec![0x5A; usize::from(input.u16()) % 5000];
                self.is_broken |= self.write(&header, &bytes);
            }
            4 => {
                let at = GuestAddress(u64::from(input.u16()) * 8 % (2 * PAGES as u64 * 4096));
                self.memory.ram().memory().write_obj(input.u64(), at).unwrap();
                self.is_broken = true;
            }
            5 => self.read_guest(),
            6 => {
                let bytes = self.pattern(usize::from(input.u16()));
                let written = (&self.program).write(&bytes).unwrap_or(0);
                self.for_guest.extend(&bytes[..written]);
            }
            7 => self.read_program(usize::from(input.u16())),
            _ => match input.u8() % 4 {
                0 => drop(self.program.shutdown(Shutdown::Write)),
                1 => {
                    // The guest's bytes are dropped from now on.
                    let _ = self.program.shutdown(Shutdown::Read);
                    self.is_broken = true;
                }
                2 => {
                    let _ = self.program.shutdown(Shutdown::Both);
                    self.is_broken = true;
                }
                _ => pump.rings().is_closing = true,
            },
        }
    }

    /// Sends a frame of `length` bytes as a sound guest does.
    fn send(&mut self, length: usize) {
        let bytes = self.pattern(length % 4089);
        if bytes.is_empty() {
            return;
        }
        if self.write(&data_header(bytes.len() as u32), &bytes) {
            self.for_program.extend(bytes);
        }
    }

    /// Writes a packet. Returns false if there is no space.
    fn write(&mut self, header: &[u8], bytes: &[u8]) -> bool {
        let Ok(mut batch) = self.to_host.batch() else { return false };
        let is_written = batch.write(&OutPacket::in_band(0, &[header, bytes])).is_ok();
        let _ = batch.commit();
        is_written
    }

    /// Receives all frames, and compares them.
    fn read_guest(&mut self) {
        let Ok(mut batch) = self.to_guest.batch() else { return };
        while let Ok(Some(packet)) = batch.next() {
            if self.is_broken {
                continue;
            }
            assert_eq!((packet.kind(), packet.transaction_id()), (PacketKind::InBand, 0));
            let payload = packet.payload();
            let header = payload[..8].try_into().ok();
            let length = match frame(header, payload.len()).expect("the host's frame is sound") {
                Frame::End => 0,
                Frame::Data(length) => length as usize,
            };
            assert_eq!(payload.len(), 8 + length.next_multiple_of(8));
            assert!(payload[8 + length..].iter().all(|byte| *byte == 0));
            let expected: Vec<u8> = self.for_guest.drain(..length).collect();
            assert_eq!(payload[8..8 + length], expected);
        }
        let _ = batch.commit();
    }

    fn read_program(&mut self, most: usize) {
        let mut bytes = vec![0; most.min(1 << 18)];
        let count = (&self.program).read(&mut bytes).unwrap_or(0);
        if !self.is_broken {
            let expected: Vec<u8> = self.for_program.drain(..count).collect();
            assert_eq!(bytes[..count], expected);
        }
    }

    fn pattern(&mut self, length: usize) -> Vec<u8> {
        self.next = self.next.wrapping_add(1);
        let seed = self.next;
        (0..length).map(|at| (at as u8).wrapping_mul(7) ^ (at >> 8) as u8 ^ seed).collect()
    }
}

/// Returns the events of a socket, which have the same numbers for poll and epoll.
fn poll(socket: &UnixStream) -> u32 {
    let events = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
    let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
    // SAFETY: the entry outlives the call.
    unsafe { libc::poll(&raw mut entry, 1, 0) };
    entry.revents as u32
}

/// Checks the parser of requests.
fn request(data: &[u8]) {
    let Ok(Some((target, length))) = parse_request(data) else { return };
    assert!(length <= 64 && data[length - 1] == b'\n');
    let line = match target {
        Target::Port(port) => format!("CONNECT {port}\n"),
        Target::Service(service) => format!("CONNECT {service}\n"),
    };
    assert_eq!(parse_request(line.as_bytes()), Ok(Some((target, line.len()))));
}
