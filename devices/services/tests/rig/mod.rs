//! A guest with the services, whose drivers are written by the tests.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use synthvm_services::protocol::ServiceKind;
use synthvm_services::protocol::time::HostTime;
use synthvm_services::{
    Clock, Done, HostClock, ServiceDevice, ServiceError, ServiceReport, Services, ServicesOptions,
    ShutdownRequest,
};
use vmbus_device::{InlineWorkers, WorkerOptions};
use vmbus_host::Device;
use vmbus_loopback::bare::{BareChannel, BareGuest, GuestOffer};
use vmbus_ring::{OutPacket, PacketKind};

/// Pages of each ring, with its control page.
pub(crate) const RING_PAGES: usize = 9;

/// A clock of the host that tests set.
#[derive(Debug, Default)]
pub(crate) struct TestClock(Mutex<HostTime>);

impl TestClock {
    pub(crate) fn set(&self, utc: u64, reference: u64) {
        *self.0.lock().unwrap() = HostTime { utc, reference };
    }
}

impl HostClock for TestClock {
    fn now(&self) -> io::Result<HostTime> {
        Ok(*self.0.lock().unwrap())
    }
}

/// A guest with all services.
pub(crate) struct Rig {
    pub(crate) guest: BareGuest,
    pub(crate) services: Services,
    pub(crate) clock: Clock,
    pub(crate) host_clock: Arc<TestClock>,
    pub(crate) inline: InlineWorkers,
}

/// A driver's end of a channel.
pub(crate) struct Driver {
    pub(crate) channel: BareChannel,
    pub(crate) kind: ServiceKind,
    /// The transaction id of the VMBus with which it answers.
    pub(crate) bus_id: u64,
}

/// A request as the guest received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) kind: u16,
    pub(crate) version: [u16; 2],
    pub(crate) framework: [u16; 2],
    pub(crate) transaction: u8,
    pub(crate) flags: u8,
    pub(crate) body: Vec<u8>,
    /// The whole packet, with its padding.
    pub(crate) packet: Vec<u8>,
}

/// Receives the result of an operation.
pub(crate) struct Outcome<T>(Receiver<Result<T, ServiceError>>);

pub(crate) fn outcome<T: Send + 'static>() -> (Done<T>, Outcome<T>) {
    let (sender, receiver) = channel();
    (Box::new(move |result| sender.send(result).unwrap_or_default()), Outcome(receiver))
}

impl<T: std::fmt::Debug> Outcome<T> {
    /// Returns the result, which must be there.
    #[track_caller]
    pub(crate) fn get(&self) -> Result<T, ServiceError> {
        self.0.try_recv().expect("there is a result")
    }

    /// Waits for a result that another thread causes.
    pub(crate) fn wait(&self) -> Result<T, ServiceError> {
        self.0.recv_timeout(Duration::from_secs(60)).expect("there is a result")
    }

    /// Checks that there is no result yet.
    #[track_caller]
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.0.try_recv(), Err(TryRecvError::Empty))
    }
}

pub(crate) fn devices(
    kinds: &[ServiceKind],
    clock: &Clock,
    host_clock: &Arc<TestClock>,
    inline: &InlineWorkers,
) -> (Services, Vec<Box<dyn Device>>) {
    let options = ServicesOptions {
        host_clock: Arc::clone(host_clock) as _,
        clock: clock.clone(),
        workers: WorkerOptions::default().inline(inline.clone()),
    };
    let (services, devices) = Services::new(kinds, &options).unwrap();
    let boxed = |device: ServiceDevice| Box::new(device) as Box<dyn Device>;
    (services, devices.into_iter().map(boxed).collect())
}

impl Rig {
    pub(crate) fn new() -> Self {
        let (clock, host_clock, inline) =
            (Clock::manual(), Arc::new(TestClock::default()), InlineWorkers::default());
        let (services, devices) = devices(&ServiceKind::ALL, &clock, &host_clock, &inline);
        let (mut guest, _) = BareGuest::new(devices);
        let workers = inline.clone();
        guest.serve = Some(Arc::new(move || workers.serve()));
        Self { guest, services, clock, host_clock, inline }
    }

    /// Asks the guest to shut down.
    pub(crate) fn shut_down(&self) -> Outcome<()> {
        let (done, result) = outcome();
        self.services.shutdown(ShutdownRequest::default(), done);
        result
    }

    pub(crate) fn offer(&self, kind: ServiceKind) -> GuestOffer {
        *self.guest.offers.iter().find(|offer| offer.class == kind.class()).unwrap()
    }

    /// Opens a channel.
    pub(crate) fn open(&mut self, kind: ServiceKind) -> Driver {
        let offer = self.offer(kind);
        let channel = self.guest.open(offer, RING_PAGES);
        Driver { channel, kind, bus_id: 0 }
    }

    /// Opens a channel, and agrees on the newest versions.
    pub(crate) fn connect(&mut self, kind: ServiceKind) -> Driver {
        let newest = match kind {
            ServiceKind::Shutdown => [3, 2],
            ServiceKind::TimeSync | ServiceKind::Kvp => [4, 0],
            ServiceKind::Heartbeat => [3, 0],
            ServiceKind::Vss => [5, 0],
            ServiceKind::Copy => [1, 1],
        };
        self.connect_with(kind, [3, 0], newest)
    }

    pub(crate) fn connect_with(
        &mut self,
        kind: ServiceKind,
        framework: [u16; 2],
        version: [u16; 2],
    ) -> Driver {
        let mut driver = self.open(kind);
        let offer = driver.request();
        driver.agree(&offer, framework, version);
        driver.serve();
        driver
    }

    /// Lets time pass, and serves the channels.
    pub(crate) fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.inline.serve();
    }

    pub(crate) fn report(&self, kind: ServiceKind) -> ServiceReport {
        self.services.reports().into_iter().find(|report| report.kind == kind).unwrap()
    }
}

impl Driver {
    /// Returns the next request, which must be there.
    #[track_caller]
    pub(crate) fn request(&mut self) -> Request {
        self.serve();
        self.try_request().expect("there is a request")
    }

    /// Returns the next request, if the host has sent one.
    pub(crate) fn try_request(&mut self) -> Option<Request> {
        let packet = self.channel.try_receive()?;
        assert_eq!(packet.kind, PacketKind::InBand);
        let bytes = packet.payload;
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!((word(0), half(26)), (1, 0));
        let end = 8 + word(4);
        assert_eq!(usize::from(half(18)), end - 28, "the size in the second header");
        assert_eq!(bytes.len(), end.next_multiple_of(8));
        Some(Request {
            framework: [half(8), half(10)],
            kind: half(12),
            version: [half(14), half(16)],
            transaction: bytes[24],
            flags: bytes[25],
            body: bytes[28..end].to_vec(),
            packet: bytes,
        })
    }

    /// Serves the host's end.
    pub(crate) fn serve(&self) {
        self.channel.serve.as_ref().unwrap()();
    }

    /// Checks that the host has sent nothing.
    #[track_caller]
    pub(crate) fn is_quiet(&mut self) {
        self.serve();
        assert_eq!(self.try_request(), None);
    }

    /// Answers as drivers of Linux do: the request itself, with a status and another body.
    pub(crate) fn answer(&mut self, request: &Request, status: u32, body: &[u8]) {
        let mut packet = request.packet.clone();
        packet[20..24].copy_from_slice(&status.to_le_bytes());
        packet[25] = 5;
        packet[28..28 + body.len()].copy_from_slice(body);
        self.send(&packet);
        self.serve();
    }

    /// Answers the request for versions.
    pub(crate) fn agree(&mut self, offer: &Request, framework: [u16; 2], version: [u16; 2]) {
        assert_eq!((offer.kind, offer.flags), (0, 3));
        let words = [1, 1, 0, 0, framework[0], framework[1], version[0], version[1]];
        let body: Vec<u8> = words.into_iter().flat_map(u16::to_le_bytes).collect();
        let mut packet = offer.packet.clone();
        packet[18] = 0x10;
        packet[25] = 5;
        packet[28..44].copy_from_slice(&body);
        self.send(&packet);
    }

    /// Sends any bytes as an in-band packet.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        assert!(self.try_send(bytes), "the ring is full");
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        let payload = [bytes];
        self.channel.try_write(&OutPacket::in_band(self.bus_id, &payload))
    }
}

/// A number that is another one at each call, for names of files.
pub(crate) fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
