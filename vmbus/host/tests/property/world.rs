//! Plays steps: the core, the devices, and the way from them to the core, with the model looking on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use vmbus_gpadl::{GpadlKey, GpadlView, GuestRam, ReleaseSink};
use vmbus_host::Offer;
use vmbus_host::core::{Action, ChannelKey, Core, OpenParams};
use vmbus_protocol::Guid;
use vmbus_protocol::limits::MAX_GPADLS_IN_PROGRESS;
use vmbus_protocol::message::GuestMessage;

use crate::common::{CLASS, Range, Reply, VPS, instance, offer, post};
use crate::model::{AtOnce, Model};
use crate::steps::Step;

/// The well-behaved channel: sorted before all others, so it always is relid 1. Random messages never name it or its handles.
const PROBE_RELID: u32 = 1;
const PROBE_IDS: u32 = 0x7000_0000;
const PROBE_INSTANCE: u32 = 0xFFFF_0000;

#[derive(Default)]
struct Sink(Mutex<Vec<GpadlKey>>);

impl ReleaseSink for Sink {
    fn gpadl_released(&self, key: GpadlKey) {
        self.0.lock().unwrap().push(key);
    }
}

/// How often what happened.
pub type Tally = BTreeMap<&'static str, u64>;

/// What a run of any length must have seen.
pub const MUST_HAPPEN: [&str; 23] = [
    "message",
    "ignored",
    "probe",
    "offer",
    "subchannel offer",
    "rescind",
    "all offers",
    "open result",
    "open failure",
    "created",
    "refused",
    "torndown",
    "torndown later",
    "connected",
    "not connected",
    "unloaded",
    "reserved closed",
    "tl result",
    "modified",
    "removed",
    "quiesced later",
    "fault",
    "mapped",
];

/// On its way from a device to the core.
enum Event {
    Closed(ChannelKey),
    Released(GpadlKey),
}

pub struct World {
    core: Core,
    sink: Arc<Sink>,
    model: Model,
    opening: Vec<(ChannelKey, OpenParams)>,
    held: BTreeMap<ChannelKey, OpenParams>,
    closing: Vec<ChannelKey>,
    views: Vec<GpadlView>,
    inbox: VecDeque<Event>,
    bound: BTreeMap<ChannelKey, u32>,
    devices: BTreeSet<ChannelKey>,
    probe: ChannelKey,
    probes: u32,
    pub tally: Tally,
    /// A message is being handled, as opposed to an event of the host's.
    in_message: bool,
    replies: Vec<Reply>,
}

impl World {
    pub fn new(ram: &GuestRam) -> Self {
        let sink = Arc::new(Sink::default());
        let mut core = Core::new(ram.clone(), VPS, sink.clone());
        let probe = core.offer(Offer::new(Guid::default(), instance(PROBE_INSTANCE), 0)).unwrap();
        assert!(Guid::default() < CLASS);
        let devices = (0..4).map(|number| core.offer(offer(number)).unwrap()).collect();
        Self {
            core,
            sink,
            model: Model::default(),
            opening: Vec::new(),
            held: BTreeMap::new(),
            closing: Vec::new(),
            views: Vec::new(),
            inbox: VecDeque::new(),
            bound: BTreeMap::new(),
            devices,
            probe,
            probes: 0,
            tally: Tally::new(),
            in_message: false,
            replies: Vec::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    fn count_reply(&mut self, reply: &Reply) {
        let what = match reply {
            Reply::Offer { subchannel: 0, .. } => "offer",
            Reply::Offer { .. } => "subchannel offer",
            Reply::Rescind(_) => "rescind",
            Reply::AllOffers => "all offers",
            Reply::OpenResult { status: 0, .. } => "open result",
            Reply::OpenResult { .. } => "open failure",
            Reply::Created { status: 0, .. } => "created",
            Reply::Created { .. } => "refused",
            Reply::Torndown(_) if self.in_message => "torndown",
            Reply::Torndown(_) => "torndown later",
            Reply::Version { supported: 1, state: 0, .. } => "connected",
            Reply::Version { .. } => "not connected",
            Reply::Unloaded => "unloaded",
            Reply::ReservedClosed(_) => "reserved closed",
            Reply::TlResult { .. } => "tl result",
            Reply::Modified { .. } => "modified",
        };
        self.count(what);
    }

    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Message { port, bytes } => {
                if !names_the_probe(bytes) {
                    self.message(*port, bytes);
                }
            }
            Step::AnswerOpen { pick, accept } => {
                if let Some(index) = choose(*pick, self.opening.len()) {
                    self.answer_open(index, *accept);
                }
            }
            Step::AnswerClose { pick } => {
                if let Some(index) = choose(*pick, self.closing.len()) {
                    let key = self.closing.remove(index);
                    self.let_go(key);
                }
            }
            Step::Fault { pick } => {
                let held = self.held.keys().filter(|key| !self.closing.contains(key));
                let keys: Vec<_> = held.copied().collect();
                if let Some(index) = choose(*pick, keys.len()) {
                    self.let_go(keys[index]);
                    self.count("fault");
                }
            }
            Step::Map { relid, id } => {
                if let Ok(view) = self.core.gpadl_table().map(*relid, *id) {
                    *self.model.views.entry((*relid, *id)).or_default() += 1;
                    self.views.push(view);
                    self.count("mapped");
                }
            }
            Step::DropView { pick } => {
                if let Some(index) = choose(*pick, self.views.len()) {
                    let view = self.views.swap_remove(index);
                    self.drop_view(view);
                }
            }
            Step::Deliver { events } => (0..*events).for_each(|_| self.deliver()),
            Step::Offer { number } => {
                if let Ok(key) = self.core.offer(offer(*number)) {
                    self.devices.insert(key);
                }
                self.act(&mut AtOnce::default());
            }
            Step::Rescind { pick } => {
                if let Some(index) = choose(*pick, self.devices.len()) {
                    let key = *self.devices.iter().nth(index).unwrap();
                    self.core.rescind(key);
                    self.act(&mut AtOnce::default());
                }
            }
            Step::Subchannels { pick, total } => {
                let keys: Vec<_> = self.held.keys().copied().collect();
                if let Some(index) = choose(*pick, keys.len()) {
                    self.core.offer_subchannels(keys[index], *total);
                    self.act(&mut AtOnce::default());
                }
            }
            Step::Reset => {
                self.model.disconnect();
                self.core.reset();
                self.act(&mut AtOnce::default());
            }
            Step::Probe => self.probe(),
        }
        self.replies.clear();
        self.check();
    }

    /// Everybody answers and lets go: then nothing may be due.
    pub fn settle_all(&mut self) {
        while !(self.opening.is_empty()
            && self.closing.is_empty()
            && self.views.is_empty()
            && self.inbox.is_empty())
        {
            if !self.opening.is_empty() {
                self.answer_open(0, true);
            } else if let Some(key) = self.closing.pop() {
                self.let_go(key);
            } else if let Some(view) = self.views.pop() {
                self.drop_view(view);
            } else {
                self.deliver();
            }
            self.check();
        }
        self.model.check_nothing_due();
        self.core.reset();
        self.model.disconnect();
        self.act(&mut AtOnce::default());
        while let Some(key) = self.closing.pop() {
            self.let_go(key);
        }
        while !self.inbox.is_empty() {
            self.deliver();
        }
        self.model.on_quiesced();
        assert_eq!(self.core.gpadl_charges(), (0, 0), "quota is back after a reset");
        assert!(self.bound.is_empty() && self.model.offered.is_empty());
    }

    fn message(&mut self, port: u32, bytes: &[u8]) {
        self.count("message");
        let parsed = GuestMessage::parse(bytes).ok().filter(|_| matches!(port, 1 | 4));
        let mut at_once = parsed.as_ref().map(|message| self.model.before(port, message)).unwrap_or_default();
        let outcome = self.core.message(port, bytes);
        match (&parsed, outcome) {
            (Some(message), Ok(())) => self.model.taken(message),
            (Some(message), Err(_)) => self.model.ignored(message),
            (None, outcome) => assert!(outcome.is_err()),
        }
        if outcome.is_err() {
            self.count("ignored");
        }
        self.in_message = true;
        self.act(&mut at_once);
        self.in_message = false;
        let due = [
            at_once.foreign_version,
            at_once.all_offers,
            at_once.modified,
            at_once.tl_result,
            at_once.reserved_closed,
            at_once.reserved_opened,
        ];
        assert_eq!(due, [0; 6], "an answer that is due at once did not come: {at_once:?}");
    }

    fn act(&mut self, at_once: &mut AtOnce) {
        let mut actions = Vec::new();
        self.core.take_actions(&mut actions);
        for action in actions {
            match action {
                Action::Post { vp, sint, message } => {
                    let reply = Reply::decode(message.as_bytes());
                    self.count_reply(&reply);
                    self.model.on_post(&self.core, at_once, vp, sint, &reply);
                    self.replies.push(reply);
                }
                Action::Bind { key, connection_id } => {
                    assert!(!self.bound.values().any(|id| *id == connection_id), "bound twice");
                    assert!(self.bound.insert(key, connection_id).is_none());
                }
                Action::Unbind { key, connection_id } => {
                    assert_eq!(self.bound.remove(&key), Some(connection_id));
                    self.model.on_unbind(connection_id & 0xFFF);
                }
                Action::Open { key, params } => {
                    let known = self.held.contains_key(&key) || self.is_ending(key);
                    assert!(!known && !self.opening.iter().any(|(other, _)| *other == key), "opened twice");
                    *self.model.views.entry((params.relid, params.ring.key().id)).or_default() += 1;
                    self.model.served.insert(params.relid);
                    self.opening.push((key, params));
                }
                Action::Close { key } => {
                    assert!(!self.closing.contains(&key), "closed twice");
                    if self.held.contains_key(&key) {
                        self.closing.push(key);
                    } else {
                        assert!(self.is_ending(key), "closed without being open");
                    }
                }
                Action::Removed { key } => {
                    assert!(!self.bound.contains_key(&key) && !self.held.contains_key(&key));
                    self.devices.remove(&key);
                    self.count("removed");
                }
                Action::Quiesced => {
                    self.model.on_quiesced();
                    assert_eq!(self.core.gpadl_charges(), (0, 0));
                    if !self.in_message {
                        self.count("quiesced later");
                    }
                }
                Action::DiscardMessages | Action::Signal { .. } | Action::Retarget { .. } => {}
            }
        }
    }

    /// The device let go on its own, and the core has not heard of it.
    fn is_ending(&self, key: ChannelKey) -> bool {
        self.inbox.iter().any(|event| matches!(event, Event::Closed(other) if *other == key))
    }

    fn check(&self) {
        let arriving = self.core.gpadls_arriving();
        assert_eq!(self.model.unfinished(), arriving, "each header is answered or unfinished");
    }

    fn answer_open(&mut self, index: usize, accept: bool) {
        let (key, params) = self.opening.remove(index);
        if accept {
            self.held.insert(key, params);
        } else {
            self.drop_params(params);
        }
        self.core.opened(key, accept);
        self.act(&mut AtOnce::default());
    }

    fn let_go(&mut self, key: ChannelKey) {
        let params = self.held.remove(&key).unwrap();
        self.drop_params(params);
        self.inbox.push_back(Event::Closed(key));
    }

    fn drop_params(&mut self, params: OpenParams) {
        self.model.served.remove(&params.relid);
        self.drop_view(params.ring);
    }

    fn drop_view(&mut self, view: GpadlView) {
        let place = (view.key().relid, view.key().id);
        let count = self.model.views.get_mut(&place).unwrap();
        *count -= 1;
        if *count == 0 {
            self.model.views.remove(&place);
        }
        drop(view);
        let released = std::mem::take(&mut *self.sink.0.lock().unwrap());
        self.inbox.extend(released.into_iter().map(Event::Released));
    }

    fn deliver(&mut self) {
        match self.inbox.pop_front() {
            Some(Event::Closed(key)) => self.core.closed(key),
            Some(Event::Released(key)) => self.core.gpadl_released(key),
            None => {}
        }
        self.act(&mut AtOnce::default());
    }

    /// While all others misbehave: create, open, close, tear down, each answered with success.
    fn probe(&mut self) {
        let offered = self.model.offered.contains_key(&PROBE_RELID) && self.model.connected.is_some();
        if !offered || self.core.gpadls_arriving() >= MAX_GPADLS_IN_PROGRESS {
            return;
        }
        self.probes += 1;
        self.count("probe");
        let (relid, id) = (PROBE_RELID, PROBE_IDS + self.probes);
        self.replies.clear();
        for message in post::gpadl(relid, id, &[Range::pages(0, 40)]) {
            self.message(1, &message);
        }
        self.expect(&Reply::created(relid, id));
        self.message(1, &post::open(relid, id, 20, 0));
        let index = self.opening.iter().position(|(key, _)| *key == self.probe).expect("the device is asked");
        self.answer_open(index, true);
        self.expect(&Reply::opened(relid));
        self.message(1, &post::close(relid));
        self.message(1, &post::teardown(relid, id));
        let index =
            self.closing.iter().position(|key| *key == self.probe).expect("the device is asked to close");
        let key = self.closing.remove(index);
        self.let_go(key);
        while !self.inbox.is_empty() {
            self.deliver();
        }
        self.expect(&Reply::Torndown(id));
    }

    fn expect(&self, reply: &Reply) {
        assert!(self.replies.contains(reply), "the well-behaved channel got no {reply:?}");
    }
}

fn choose(pick: u64, of: usize) -> Option<usize> {
    (of > 0).then(|| (pick % of as u64) as usize)
}

fn names_the_probe(bytes: &[u8]) -> bool {
    let (relid, id) = match GuestMessage::parse(bytes) {
        Ok(GuestMessage::OpenChannel(request)) => (request.relid.get(), request.ring_gpadl.get()),
        Ok(GuestMessage::CloseChannel(relid) | GuestMessage::RelidReleased(relid)) => (relid, 0),
        Ok(GuestMessage::GpadlHeader(header, _)) => (header.relid.get(), header.gpadl.get()),
        Ok(GuestMessage::GpadlBody(id, _)) => (0, id),
        Ok(GuestMessage::GpadlTeardown(request)) => (request.relid.get(), request.gpadl.get()),
        _ => (0, 0),
    };
    relid == PROBE_RELID || id >> 28 == PROBE_IDS >> 28
}
