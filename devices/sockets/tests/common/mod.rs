//! A guest that opens connections, and the programs of the host behind them.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use synthvm_sockets::protocol::{data_header, service_of};

use synthvm_sockets::{LINGER_TIME, Services, SocketOptions, SocketReport, Sockets};
use vmbus_loopback::bare::{BareChannel, BareGuest, GuestOffer};
use vmbus_protocol::message::{MessageType, TlConnectRequest};
use vmbus_protocol::{Guid, MessageBuffer};
use vmbus_ring::OutPacket;

/// The port that most tests connect to.
pub const PORT: u32 = 5000;

/// A timeout that no test reaches.
pub const LONG: Duration = Duration::from_secs(60);

/// First page of memory that tests use for rings themselves.
pub const RINGS: usize = 1024;

/// A folder for sockets, removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("synthvm-sockets-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn start(folder: &Folder, guest: &BareGuest, timeouts: [Duration; 2]) -> Sockets {
    let [open_timeout, linger_time] = timeouts;
    let base = folder.path("vm");
    let listener = Some(UnixListener::bind(&base).unwrap());
    let services = Services::at(&base);
    let options = SocketOptions { listener, services, open_timeout, linger_time };
    Sockets::start(options, &guest.bus).unwrap()
}

/// A machine with host sockets.
pub struct Machine {
    pub guest: BareGuest,
    pub sockets: Sockets,
    pub folder: Folder,
    /// Offers that tests have taken.
    taken: usize,
    next_endpoint: u32,
}

impl Machine {
    pub fn new() -> Self {
        Self::with_timeouts([LONG, LINGER_TIME])
    }

    /// Returns a machine with a timeout to open a connection, and one to end it.
    pub fn with_timeouts(timeouts: [Duration; 2]) -> Self {
        let folder = Folder::new();
        let (guest, _) = BareGuest::new(Vec::new());
        let sockets = start(&folder, &guest, timeouts);
        Self { guest, sockets, folder, taken: 0, next_endpoint: 1 }
    }

    /// Saves the machine and restores it over the same memory, as in another process.
    pub fn migrate(&mut self) {
        self.guest.bus.pause();
        let saved = self.guest.bus.save().unwrap();
        self.guest.replace_bus(Vec::new());
        std::fs::remove_file(self.folder.path("vm")).unwrap();
        self.sockets = start(&self.folder, &self.guest, [LONG, LINGER_TIME]);
        self.guest.bus.restore(&saved).unwrap();
        self.guest.bus.resume();
    }

    /// Listens as a program of the host that serves `port`.
    pub fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.folder.path(&format!("vm_{port}"))).unwrap()
    }

    /// Connects as a program of the host, and sends a request for `port`.
    pub fn dial(&self, port: u32) -> UnixStream {
        let mut stream = UnixStream::connect(self.folder.path("vm")).unwrap();
        stream.write_all(format!("CONNECT {port}\n").as_bytes()).unwrap();
        stream
    }

    pub fn post_connect(&self, endpoint: Guid, service: Guid) {
        let request = TlConnectRequest { endpoint, service };
        self.post(&MessageBuffer::new(MessageType::TlConnectRequest, &request));
    }

    pub fn post(&self, message: &MessageBuffer) {
        let status = self.guest.bus.post_message(4, 1, message.as_bytes());
        assert_eq!(status, vmbus_host::HvStatus::Success);
    }

    /// Returns an endpoint that no connection has had.
    pub fn endpoint(&mut self) -> Guid {
        self.next_endpoint += 1;
        service_of(0x8000_0000 + self.next_endpoint)
    }

    /// Requests a connection to `port`, and returns its offer.
    pub fn connect(&mut self, port: u32) -> GuestOffer {
        let endpoint = self.endpoint();
        self.post_connect(endpoint, service_of(port));
        let offer = self.next_offer();
        assert_eq!((offer.class, offer.instance), (service_of(port), endpoint));
        assert_eq!(offer.user_defined[4], 0, "the guest has connected");
        offer
    }

    /// Waits for the next offer.
    pub fn next_offer(&mut self) -> GuestOffer {
        self.guest.await_offers(self.taken + 1);
        self.taken += 1;
        self.guest.offers[self.taken - 1]
    }

    /// Returns an open connection of the guest to a program of the host.
    pub fn pair(&mut self, pages: usize) -> (BareChannel, UnixStream) {
        let listener = self.listen(PORT);
        let offer = self.connect(PORT);
        let channel = self.guest.open(offer, pages);
        let (stream, _) = listener.accept().unwrap();
        fs::remove_file(self.folder.path(&format!("vm_{PORT}"))).unwrap();
        (channel, stream)
    }

    /// Waits for the rescind of a channel, and releases it as Linux does: without a teardown.
    #[expect(clippy::needless_pass_by_value, reason = "a closed channel must not be used again")]
    pub fn await_end(&mut self, channel: BareChannel) {
        self.await_rescind(channel.relid);
        self.guest.post_close(channel.relid);
        self.guest.release(channel.relid);
    }

    pub fn await_rescind(&mut self, relid: u32) {
        let body = self.guest.expect(MessageType::RescindChannelOffer);
        assert_eq!(body[..4], relid.to_le_bytes());
    }

    pub fn report(&self) -> SocketReport {
        self.sockets.report()
    }

    /// Waits until the report is as expected.
    pub fn await_report(&self, is_expected: impl Fn(&SocketReport) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !is_expected(&self.report()) {
            assert!(Instant::now() < end, "{:?}", self.report());
            std::thread::yield_now();
        }
    }

    /// Asserts that the guest knows no channel and the loop no connection.
    pub fn assert_empty(&self) {
        self.guest.bus.wait_until_idle();
        let report = self.guest.bus.inspect();
        assert!(report.channels.is_empty() && report.gpadls.is_empty(), "{report:?}");
        self.await_report(|report| report.open == 0 && report.pending == 0);
    }
}

/// Reads the answer to a request of a program.
pub fn read_line(stream: &UnixStream) -> String {
    let mut line = String::new();
    // One byte at a time, because data follows.
    BufReader::with_capacity(1, stream).read_line(&mut line).unwrap();
    line
}

/// Sends a frame. Returns false if the ring is full.
pub fn try_send(channel: &mut BareChannel, data: &[u8]) -> bool {
    let header = data_header(data.len() as u32);
    channel.try_write(&OutPacket::in_band(0, &[&header, data]))
}

pub fn send(channel: &mut BareChannel, data: &[u8]) {
    assert!(try_send(channel, data), "the ring is full");
}

/// Receives a frame and returns its data; empty for the end.
pub fn receive(channel: &mut BareChannel) -> Vec<u8> {
    let packet = channel.receive();
    data_of(&packet.payload)
}

/// Receives a frame, if there is one.
pub fn try_receive(channel: &mut BareChannel) -> Option<Vec<u8>> {
    channel.try_receive().map(|packet| data_of(&packet.payload))
}

fn data_of(payload: &[u8]) -> Vec<u8> {
    let length = u32::from_le_bytes(payload[4..8].try_into().unwrap());
    assert_eq!(payload[..8], data_header(length));
    assert!(payload[8 + length as usize..].iter().all(|byte| *byte == 0), "padding");
    payload[8..8 + length as usize].to_vec()
}

/// Receives until the end of the data, and returns all of it.
pub fn receive_all(channel: &mut BareChannel) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let data = receive(channel);
        if data.is_empty() {
            return all;
        }
        all.extend(data);
    }
}

/// Bytes that differ at each position and with each seed.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}
