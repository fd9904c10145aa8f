//! A guest that posts messages and reads the answers, and the device on the other side, over the
//! bare core.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

pub mod post;
pub mod reply;
pub mod shell;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmbus_gpadl::{GpadlKey, GpadlView, GuestRam, MapError, ReleaseSink};
use vmbus_host::Offer;
use vmbus_host::core::{
    Action, ChannelKey, ChannelState, ConnectRequest, ConnectionState, Core, OpenParams, Outcome,
};
use vmbus_protocol::{Guid, Version};

pub use post::Range;
pub use reply::Reply;

/// The connection id that tests post on.
pub const PORT: u32 = 4;
/// VPs of a test machine.
pub const VPS: u32 = 4;
/// Pages of low RAM in a test machine; a hole follows.
pub const LOW_PAGES: u64 = 0x4000;

/// A class that no real device has.
pub const CLASS: Guid = Guid::new(0xC1A5, 0, 0, [0; 8]);

/// Records released views; the guest reports them to the core.
#[derive(Default)]
pub struct Sink(Mutex<Vec<GpadlKey>>);

impl ReleaseSink for Sink {
    fn gpadl_released(&self, key: GpadlKey) {
        self.0.lock().unwrap().push(key);
    }
}

/// The device's answer when it is asked to open or close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Accept,
    Refuse,
    /// The test answers later.
    Hold,
}

/// A core, the guest that talks to it and the devices that it asks.
pub struct Guest {
    pub core: Core,
    pub ram: GuestRam,
    sink: Arc<Sink>,
    pub on_open: Answer,
    pub on_close: Answer,
    /// Opens that the test has not answered.
    pub opening: VecDeque<(ChannelKey, OpenParams)>,
    /// Closes that the test has not answered.
    pub closing: VecDeque<ChannelKey>,
    /// The channels that devices have open, rings included.
    pub held: BTreeMap<ChannelKey, OpenParams>,
    /// The messages that came, in order, until a test takes them.
    pub replies: VecDeque<Reply>,
    /// (VP, SINT) of each message that came, never emptied.
    pub targets: Vec<(u32, u8)>,
    /// Bytes of each message that came, never emptied.
    pub sizes: Vec<usize>,
    pub signals: Vec<ChannelKey>,
    /// Doorbells signalled so that a device sees a GPADL that is being torn down.
    pub wakes: Vec<ChannelKey>,
    pub retargets: Vec<(ChannelKey, u32)>,
    pub bound: BTreeSet<u32>,
    /// Requests for connections that no test has taken.
    pub connects: Vec<ConnectRequest>,
    pub removed: Vec<ChannelKey>,
    pub quiesced: usize,
    pub discards: usize,
}

/// RAM of every test machine: pages `0..LOW_PAGES`, a hole, and 16 pages at 4 GiB.
pub fn test_ram() -> GuestRam {
    let low = usize::try_from(LOW_PAGES * 4096).unwrap();
    let map = [(GuestAddress(0), low), (GuestAddress(1 << 32), 16 * 4096)];
    GuestRam::new(GuestMemoryMmap::from_ranges(&map).unwrap()).unwrap()
}

pub fn instance(number: u32) -> Guid {
    Guid::new(number, 0, 0, [0; 8])
}

pub fn offer(number: u32) -> Offer {
    Offer::new(CLASS, instance(number), number)
}

impl Guest {
    /// Returns a machine with `devices` devices and no connected guest.
    pub fn new(devices: u32) -> Self {
        let (ram, sink) = (test_ram(), Arc::new(Sink::default()));
        let mut core = Core::new(ram.clone(), VPS, sink.clone());
        for device in 0..devices {
            core.offer(offer(device)).unwrap();
        }
        Self {
            core,
            ram,
            sink,
            on_open: Answer::Accept,
            on_close: Answer::Accept,
            opening: VecDeque::new(),
            closing: VecDeque::new(),
            held: BTreeMap::new(),
            replies: VecDeque::new(),
            targets: Vec::new(),
            sizes: Vec::new(),
            signals: Vec::new(),
            wakes: Vec::new(),
            retargets: Vec::new(),
            bound: BTreeSet::new(),
            connects: Vec::new(),
            removed: Vec::new(),
            quiesced: 0,
            discards: 0,
        }
    }

    /// Returns a machine with a guest that has made contact with `version` and has its offers:
    /// relids 1..=devices.
    pub fn connected(devices: u32, version: Version) -> Self {
        let mut guest = Self::new(devices);
        guest.post(&post::contact(version.word(), 0)).unwrap();
        guest.post(&post::request_offers()).unwrap();
        guest.replies.clear();
        guest
    }

    /// As [`Guest::connected`] with the newest version that every feature needs.
    pub fn v5_3(devices: u32) -> Self {
        Self::connected(devices, Version::V5_3)
    }

    /// As [`Guest::v5_3`], with channel 1 open over GPADL 10. Its device closes when the test says
    /// so ([`Guest::closed`]).
    pub fn open_held(devices: u32) -> Self {
        let mut guest = Self::v5_3(devices);
        guest.open(1, 10);
        guest.on_close = Answer::Hold;
        guest
    }

    /// As [`Guest::open_held`] with one device, after the guest's CLOSECHANNEL.
    pub fn closing() -> Self {
        let mut guest = Self::open_held(1);
        guest.post(&post::close(1)).unwrap();
        guest
    }

    /// Drops a view of a GPADL, and returns the messages that follow.
    pub fn drop_view(&mut self, view: GpadlView) -> Vec<Reply> {
        drop(view);
        self.settle();
        self.take()
    }

    /// Posts one message and lets devices and bus settle.
    pub fn post(&mut self, message: &[u8]) -> Outcome {
        self.post_on(PORT, message)
    }

    pub fn post_on(&mut self, connection_id: u32, message: &[u8]) -> Outcome {
        let outcome = self.core.message(connection_id, message);
        self.settle();
        outcome
    }

    /// Posts a message and returns all messages that it caused.
    pub fn ask(&mut self, message: &[u8]) -> Vec<Reply> {
        assert_eq!(self.replies, [], "answers nobody took");
        let _ = self.post(message);
        self.take()
    }

    pub fn take(&mut self) -> Vec<Reply> {
        self.replies.drain(..).collect()
    }

    /// Carries actions out and brings released views to the core, until nothing moves.
    pub fn settle(&mut self) {
        let mut actions = Vec::new();
        loop {
            self.core.take_actions(&mut actions);
            let released = std::mem::take(&mut *self.sink.0.lock().unwrap());
            if actions.is_empty() && released.is_empty() {
                return;
            }
            for action in actions.drain(..) {
                self.act(action);
            }
            for key in released {
                self.core.gpadl_released(key);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Post { vp, sint, message } => {
                self.targets.push((vp, sint));
                self.sizes.push(message.as_bytes().len());
                self.replies.push_back(Reply::decode(message.as_bytes()));
            }
            Action::DiscardMessages => self.discards += 1,
            Action::Bind { connection_id, .. } => {
                assert!(self.bound.insert(connection_id), "{connection_id:#x} bound twice");
            }
            Action::Unbind { connection_id, .. } => {
                assert!(self.bound.remove(&connection_id), "{connection_id:#x} was not bound");
            }
            Action::Open { key, params } => match self.on_open {
                Answer::Hold => self.opening.push_back((key, params)),
                answer => self.answer_open(key, params, answer == Answer::Accept),
            },
            Action::Reopen { key, params, .. } => {
                let accepted = self.on_open == Answer::Accept;
                if accepted {
                    assert!(self.held.insert(key, params).is_none(), "{key:?} opened while open");
                }
                self.core.reopened(key, accepted);
            }
            Action::Close { key } => match self.on_close {
                Answer::Hold => self.closing.push_back(key),
                Answer::Accept | Answer::Refuse => self.let_go(key),
            },
            Action::Signal { key } => self.signals.push(key),
            Action::Wake { key } => self.wakes.push(key),
            Action::Retarget { key, vp } => self.retargets.push((key, vp)),
            Action::Connect(request) => self.connects.push(request),
            Action::Removed { key } => self.removed.push(key),
            Action::Quiesced => {
                assert!(
                    self.held.is_empty() && self.opening.is_empty(),
                    "quiesced while a device has a ring"
                );
                self.quiesced += 1;
            }
        }
    }

    fn answer_open(&mut self, key: ChannelKey, params: OpenParams, accepted: bool) {
        if accepted {
            assert!(self.held.insert(key, params).is_none(), "{key:?} opened while open");
        }
        self.core.opened(key, accepted);
    }

    /// Answers the oldest open that was held back.
    pub fn opened(&mut self, accepted: bool) {
        let (key, params) = self.opening.pop_front().expect("no open was asked for");
        self.answer_open(key, params, accepted);
        self.settle();
    }

    /// Lets the device finish the oldest close that was held back.
    pub fn closed(&mut self) {
        let key = self.closing.pop_front().expect("no close was asked for");
        self.let_go(key);
        self.settle();
    }

    /// The device closes a channel on its own.
    pub fn fault(&mut self, relid: u32) {
        self.let_go(self.key(relid));
        self.settle();
    }

    /// In the order of the shell: the rings go first, then the bus learns of the end.
    fn let_go(&mut self, key: ChannelKey) {
        drop(self.held.remove(&key).expect("the device has no such channel"));
        for released in std::mem::take(&mut *self.sink.0.lock().unwrap()) {
            self.core.gpadl_released(released);
        }
        self.core.closed(key);
    }

    pub fn offer(&mut self, number: u32) -> ChannelKey {
        let key = self.core.offer(offer(number)).unwrap();
        self.settle();
        key
    }

    pub fn rescind(&mut self, key: ChannelKey) {
        self.core.rescind(key);
        self.settle();
    }

    /// Maps a GPADL as a device does.
    pub fn map(&self, relid: u32, id: u32) -> Result<GpadlView, MapError> {
        self.core.gpadl(relid, id).ok_or(MapError::Unknown(id))?.map()
    }

    pub fn key(&self, relid: u32) -> ChannelKey {
        let reports = self.core.channel_reports();
        reports.iter().find(|report| report.relid == Some(relid)).expect("no such relid").key
    }

    pub fn state(&self, relid: u32) -> Option<ChannelState> {
        let reports = self.core.channel_reports();
        reports.iter().find(|report| report.relid == Some(relid)).map(|report| report.state)
    }

    pub fn is_connected(&self) -> bool {
        self.core.connection().0 == ConnectionState::Connected
    }

    /// Posts a GPADL of whole pages from page 0 on. Returns the messages that came.
    pub fn create(&mut self, relid: u32, id: u32, pages: usize) -> Vec<Reply> {
        self.create_ranges(relid, id, &[Range::pages(0, pages)])
    }

    pub fn create_ranges(&mut self, relid: u32, id: u32, ranges: &[Range]) -> Vec<Reply> {
        assert_eq!(self.replies, [], "answers nobody took");
        for message in post::gpadl(relid, id, ranges) {
            let _ = self.post(&message);
        }
        self.take()
    }

    /// Creates a ring GPADL of `2 * half` pages and opens the channel with it.
    pub fn open(&mut self, relid: u32, ring: u32) {
        assert_eq!(self.create(relid, ring, 8), [Reply::created(relid, ring)]);
        assert_eq!(self.ask(&post::open(relid, ring, 4, 0)), [Reply::opened(relid)]);
    }
}
