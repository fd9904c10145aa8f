//! "Another channel never hangs": a well-behaved channel goes through its life while all others
//! misbehave.

use vmbus_protocol::limits::MAX_GPADLS_IN_PROGRESS;
use vmbus_protocol::message::GuestMessage;

use super::World;
use crate::common::{Range, Reply, post};

/// The relid of the well-behaved channel. Its offer sorts first, so it is always relid 1. Random
/// messages never name it or its handles.
const PROBE_RELID: u32 = 1;
const PROBE_IDS: u32 = 0x7000_0000;
pub(super) const PROBE_INSTANCE: u32 = 0xFFFF_0000;

impl World {
    /// While all others misbehave: create, open, close, tear down, each answered with success.
    pub(super) fn probe(&mut self) {
        let offered =
            self.model.offered.contains_key(&PROBE_RELID) && self.model.connected.is_some();
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
        let index = self
            .opening
            .iter()
            .position(|(key, _)| *key == self.probe)
            .expect("the device is asked");
        self.answer_open(index, true);
        self.expect(&Reply::opened(relid));
        self.message(1, &post::close(relid));
        self.message(1, &post::teardown(relid, id));
        let index = self
            .closing
            .iter()
            .position(|key| *key == self.probe)
            .expect("the device is asked to close");
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

/// Returns true for a message that would disturb the well-behaved channel.
pub(super) fn names_the_probe(bytes: &[u8]) -> bool {
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
