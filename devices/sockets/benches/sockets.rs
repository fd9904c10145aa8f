//! Benchmark of host sockets: bytes between a guest's ring and a program of the host, through a
//! pump, compared with a bare pair of Unix sockets.
//!
//! `cargo xtask bench sockets --json FILE` prints a table. It runs `cargo bench -p synthvm-sockets
//! --bench sockets [-- --json FILE]`. All ends take turns in one thread. The limit of each number
//! is the bare pair with the same writes and reads, measured in the same run: the difference is the
//! cost of the frames and of the ring. The guest's own copies into and out of its ring are not
//! measured.

#[path = "../../../vmbus/loopback/benches/bus/clock.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod clock;
#[path = "../../../vmbus/loopback/benches/bus/number.rs"]
mod number;
#[path = "../../../vmbus/loopback/benches/bus/program.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod program;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use number::Number;
use synthvm_sockets::protocol::data_header;
use synthvm_sockets::pump::{BareRings, Counters, Pump, Scratch};
use vmbus_ring::{Incoming, Mode, Outgoing, PlainMemory};

/// Pages of each ring of a Linux guest with the usual limits of sockets.
const PAGES: usize = 52;
/// Bytes of a frame of Linux.
const FRAME: usize = 4088;
/// Bytes that a program writes or reads with one call: less than a socket holds.
const BLOCK: usize = 16 * FRAME;
/// Maximum cost of a large transfer relative to the bare pair.
const ALLOWED: f64 = 1.25;
/// Number of passes.
const PASSES: usize = 5;

fn main() -> ExitCode {
    program::main("sockets", |options| {
        options.report("only --json FILE is", || Ok(program::best_of(PASSES, measure)))
    })
}

fn measure() -> Vec<Number> {
    let (mut connection, mut bare) = (Connection::new(), Bare::new());
    let mut numbers = Vec::new();
    for (name, frames, length) in [("message", 1, 64), ("block", BLOCK / FRAME, FRAME)] {
        let limit = clock::best_of(|| bare.pass(frames * length));
        let to_host = clock::best_of(|| connection.move_to_host(frames, length));
        let to_guest = clock::best_of(|| connection.move_to_guest(frames * length));
        let target = (frames > 1).then_some(limit * ALLOWED);
        for (direction, value) in [("to_host", to_host), ("to_guest", to_guest)] {
            let name = format!("sockets_{direction}_{name}_ns");
            numbers.push(Number::new(name, "ns", value, limit).target(target));
        }
    }
    numbers
}

/// A guest and a program of the host, with a pump between them.
struct Connection {
    pump: Pump<BareRings>,
    scratch: Scratch,
    counters: Counters,
    to_host: Outgoing,
    to_guest: Incoming,
    program: UnixStream,
    block: Vec<u8>,
    _memory: PlainMemory,
}

impl Connection {
    fn new() -> Self {
        let memory = PlainMemory::new(2 * PAGES).unwrap();
        let ring = |first| memory.ring_at(first, PAGES, Mode::Mirrored).unwrap();
        let (up, down) = (ring(0), ring(PAGES));
        up.reset();
        down.reset();
        let rings = BareRings {
            incoming: Incoming::new(up.clone()).unwrap(),
            outgoing: Outgoing::new(down.clone()).unwrap(),
            is_closing: false,
        };
        let (socket, program) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            pump: Pump::new(rings, socket),
            scratch: Scratch::default(),
            counters: Counters::default(),
            to_host: Outgoing::new(up).unwrap(),
            to_guest: Incoming::new(down).unwrap(),
            program,
            block: vec![1; BLOCK],
            _memory: memory,
        }
    }

    /// Moves frames from the guest to the program.
    fn move_to_host(&mut self, frames: usize, length: usize) {
        let mut batch = self.to_host.batch().unwrap();
        for _ in 0..frames {
            // The data is in the ring already.
            batch.write_in_place(&data_header(length as u32), length as u32).unwrap();
        }
        let _ = batch.commit();
        self.turn(libc::EPOLLOUT);
        self.program.read_exact(&mut self.block[..frames * length]).unwrap();
    }

    /// Moves bytes from the program to the guest.
    fn move_to_guest(&mut self, length: usize) {
        self.program.write_all(&self.block[..length]).unwrap();
        self.turn(libc::EPOLLIN);
        let (mut batch, mut received) = (self.to_guest.batch().unwrap(), 0);
        while let Some(packet) = batch.next().unwrap() {
            let [.., a, b, c, d] = packet.read::<[u8; 8]>().unwrap();
            received += u32::from_le_bytes([a, b, c, d]) as usize;
        }
        let _ = batch.commit();
        assert_eq!(received, length);
    }

    fn turn(&mut self, event: libc::c_int) {
        self.pump.socket_events(event as u32);
        self.pump.turn(&mut self.scratch, &self.counters).unwrap();
    }
}

/// Two programs of the host with a pair of sockets.
struct Bare {
    ends: (UnixStream, UnixStream),
    block: Vec<u8>,
}

impl Bare {
    fn new() -> Self {
        Self { ends: UnixStream::pair().unwrap(), block: vec![1; BLOCK] }
    }

    fn pass(&mut self, length: usize) {
        self.ends.0.write_all(&self.block[..length]).unwrap();
        self.ends.1.read_exact(&mut self.block[..length]).unwrap();
    }
}
