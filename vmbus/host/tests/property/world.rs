//! Plays steps with the core, the devices and the events between them, checked by the model.

mod probe;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use vmbus_gpadl::{Gpadl, GpadlKey, GpadlView, GuestRam, ReleaseSink};
use vmbus_host::Offer;
use vmbus_host::core::{Action, ChannelKey, Core, OpenParams};
use vmbus_protocol::Guid;
use vmbus_protocol::message::GuestMessage;

use crate::common::{CLASS, Reply, VPS, instance, offer};
use crate::model::{AtOnce, Model};
use crate::steps::Step;
use crate::tally::{Tally, name_of};
use probe::{PROBE_INSTANCE, names_the_probe};

#[derive(Default)]
struct Sink(Mutex<Vec<GpadlKey>>);

impl ReleaseSink for Sink {
    fn gpadl_released(&self, key: GpadlKey) {
        self.0.lock().unwrap().push(key);
    }
}

/// An event from a device to the core.
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
                let gpadl = self.core.gpadl(*relid, *id);
                if let Some(Ok(view)) = gpadl.map(Gpadl::map) {
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
            Step::LetGo => self.let_all_go(),
            Step::Probe => self.probe(),
        }
        self.replies.clear();
        self.check();
    }

    /// Makes all devices answer and close all but open channels. No answer may be due then.
    fn let_all_go(&mut self) {
        loop {
            if !self.opening.is_empty() {
                self.answer_open(0, true);
            } else if let Some(key) = self.closing.pop() {
                self.let_go(key);
            } else if let Some(view) = self.views.pop() {
                self.drop_view(view);
            } else if !self.inbox.is_empty() {
                self.deliver();
            } else {
                break;
            }
        }
        self.model.check_nothing_due(&self.core);
    }

    /// Ends the run with a reset, after which nothing may be left.
    pub fn end(&mut self) {
        self.let_all_go();
        self.step(&Step::Reset);
        self.let_all_go();
        self.model.on_quiesced();
        assert_eq!(self.core.gpadl_charges(), (0, 0), "quota is back after a reset");
        assert!(self.bound.is_empty() && self.model.offered.is_empty());
    }

    fn message(&mut self, port: u32, bytes: &[u8]) {
        self.count("message");
        let parsed = GuestMessage::parse(bytes).ok().filter(|_| matches!(port, 1 | 4));
        let mut at_once =
            parsed.as_ref().map(|message| self.model.before(port, message)).unwrap_or_default();
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
                    self.count(name_of(&reply, self.in_message));
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
                Action::Reopen { .. } => unreachable!("nothing is restored"),
                Action::Connect(_) => unreachable!("no handler takes connections"),
                Action::Open { key, params } => {
                    let known = self.held.contains_key(&key) || self.is_ending(key);
                    assert!(
                        !known && !self.opening.iter().any(|(other, _)| *other == key),
                        "opened twice"
                    );
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
                Action::DiscardMessages
                | Action::Wake { .. }
                | Action::Signal { .. }
                | Action::Retarget { .. } => {}
            }
        }
    }

    /// Returns true if the device has closed the channel on its own, and the core does not know
    /// yet.
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
}

fn choose(pick: u64, of: usize) -> Option<usize> {
    (of > 0).then(|| (pick % of as u64) as usize)
}
