//! The rules that a guest may rely on: its requests, the host's answers, and messages that must
//! never come.
//!
//! The model has no phases. It takes two facts from the core only: whether a GPADL that was
//! reported as created really exists (on a closing channel the answer is a courtesy), and whether a
//! channel is closing.

use std::collections::{BTreeMap, BTreeSet};

use vmbus_host::core::{ChannelState, Core};
use vmbus_protocol::message::{GuestMessage, InitiateContact};
use vmbus_protocol::{Guid, Version};

use crate::common::{Reply, VPS};

/// The answer that a guest without a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Unloaded,
    Version { vp: u32, accepts: Option<Version> },
}

/// Answers that must come before the handling of their request ends.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AtOnce {
    pub foreign_version: u32,
    pub all_offers: u32,
    pub modified: u32,
    pub tl_result: u32,
    pub reserved_closed: u32,
    pub reserved_opened: u32,
    /// The teardown that is being handled.
    teardown: Option<(u32, u32)>,
}

#[derive(Default)]
pub struct Model {
    pub connected: Option<Version>,
    pub wish: Option<Wish>,
    vp: u32,
    offers_requested: bool,
    /// Relid: instance and subchannel.
    pub offered: BTreeMap<u32, (Guid, u16)>,
    rescinded: BTreeSet<u32>,
    /// Relids that the guest has released: no RESCIND may follow, as it would never be answered.
    released: BTreeSet<u32>,
    /// (relid, id) of headers without an answer.
    headers: BTreeMap<(u32, u32), usize>,
    /// Real GPADLs, and whether the guest waits for TORNDOWN.
    accepted: BTreeMap<(u32, u32), bool>,
    /// (relid, open id) of opens without a result.
    opens: BTreeMap<(u32, u32), usize>,
    /// Opens that a later CLOSE cancelled: they must fail.
    cancelled: BTreeMap<(u32, u32), usize>,
    /// Relids that are open: an OPEN succeeded, and no CLOSE came after it.
    open: BTreeSet<u32>,
    /// Views alive by (relid, id): the world keeps it true.
    pub views: BTreeMap<(u32, u32), usize>,
    /// Relids that a device serves or is being asked about: the world keeps it true.
    pub served: BTreeSet<u32>,
}

fn increase<K: Ord>(map: &mut BTreeMap<K, usize>, key: K) {
    *map.entry(key).or_default() += 1;
}

/// Returns false if there was none.
fn decrease<K: Ord>(map: &mut BTreeMap<K, usize>, key: &K) -> bool {
    let Some(count) = map.get_mut(key) else { return false };
    *count -= 1;
    if *count == 0 {
        map.remove(key);
    }
    true
}

impl Model {
    /// Records the answers that a message requires, before it is handled.
    pub fn before(&mut self, port: u32, message: &GuestMessage<'_>) -> AtOnce {
        let mut at_once = AtOnce::default();
        match (message, self.connected) {
            (GuestMessage::InitiateContact(contact), _) => {
                self.before_contact(port, contact, &mut at_once);
            }
            (GuestMessage::Unload, _) => {
                self.disconnect();
                self.wish = Some(Wish::Unloaded);
            }
            (GuestMessage::CloseReservedChannel(request), version) => {
                let fits = request.target_vp.get() < VPS && request.target_sint.get() < 16;
                let exists = version.is_none_or(|version| version >= Version::V4_0);
                at_once.reserved_closed = u32::from(fits && exists);
            }
            (_, None) => {}
            (GuestMessage::RequestOffers, Some(_)) => {
                at_once.all_offers = u32::from(!self.offers_requested);
                self.offers_requested = true;
            }
            (GuestMessage::GpadlHeader(header, _), Some(_)) => {
                increase(&mut self.headers, (header.relid.get(), header.gpadl.get()));
            }
            (GuestMessage::GpadlTeardown(request), Some(_)) => {
                let place = (request.relid.get(), request.gpadl.get());
                at_once.teardown = Some(place);
                if let Some(waits) = self.accepted.get_mut(&place) {
                    *waits = true;
                }
            }
            (GuestMessage::OpenChannel(request), Some(_)) => {
                increase(&mut self.opens, (request.relid.get(), request.open_id.get()));
            }
            (GuestMessage::CloseChannel(relid), Some(_)) => self.before_close(*relid),
            (GuestMessage::OpenReservedChannel(request), Some(version)) => {
                let fits = request.target_vp.get() < VPS && request.target_sint.get() < 16;
                at_once.reserved_opened = u32::from(fits && version >= Version::V4_0);
            }
            (GuestMessage::ModifyChannel(_), Some(version)) => {
                at_once.modified = u32::from(version >= Version::V5_3);
            }
            (GuestMessage::TlConnectRequest(_), Some(version)) => {
                at_once.tl_result = u32::from(version >= Version::V4_1);
            }
            _ => {}
        }
        at_once
    }

    fn before_contact(&mut self, port: u32, contact: &InitiateContact, at_once: &mut AtOnce) {
        let word = contact.version.get();
        let vp = if word >= Version::V3_0.word() { contact.target_vp.get() } else { 0 };
        if vp >= VPS {
            return;
        }
        let [sint, vtl, ..] = contact.target_info;
        let foreign = sint != 2 || (vtl != 0 && word >= Version::V5_1.word());
        if port == 4 && word >= Version::V5_0.word() && foreign {
            at_once.foreign_version = u32::from(sint < 16);
            return;
        }
        let (first, second) = (contact.monitor_page1.get(), contact.monitor_page2.get());
        let sane = (first == 0) == (second == 0) && first % 4096 == 0 && second % 4096 == 0;
        self.disconnect();
        self.wish = Some(Wish::Version { vp, accepts: Version::from_word(word).filter(|_| sane) });
    }

    /// Records that all channels, open or being opened, are closed by the message.
    fn before_close(&mut self, relid: u32) {
        self.open.remove(&relid);
        let due = self.opens.range((relid, 0)..=(relid, u32::MAX));
        self.cancelled.extend(due.map(|(place, count)| (*place, *count)));
    }

    /// Records that the message was ignored: an open needs no answer.
    pub fn ignored(&mut self, message: &GuestMessage<'_>) {
        if let GuestMessage::OpenChannel(request) = message {
            decrease(&mut self.opens, &(request.relid.get(), request.open_id.get()));
        }
    }

    /// Records that the message was accepted, before its answers are checked.
    pub fn taken(&mut self, message: &GuestMessage<'_>) {
        if let GuestMessage::RelidReleased(relid) = message {
            self.released.insert(*relid);
        }
    }

    /// Drops the old connection with all answers due on it.
    pub fn disconnect(&mut self) {
        (self.connected, self.wish, self.offers_requested) = (None, None, false);
        self.headers.clear();
        self.accepted.clear();
        self.opens.clear();
        self.cancelled.clear();
        self.open.clear();
        self.rescinded.clear();
        self.released.clear();
    }

    /// Headers without an answer.
    pub fn unfinished(&self) -> usize {
        self.headers.values().sum()
    }

    /// Checks, with all channels closed, that no answer is due except those that wait for the
    /// guest, and that each channel is in the state of the guest's last message about it.
    pub fn check_nothing_due(&self, core: &Core) {
        assert_eq!(self.wish, None, "an answer to contact or unload is due");
        assert!(self.opens.is_empty(), "opens without result: {:?}", self.opens);
        // A ring that the guest tore down and never closed waits for the guest.
        let due =
            |(place, waits): &(&(u32, u32), &bool)| **waits && !self.views.contains_key(place);
        let waiting: Vec<_> = self.accepted.iter().filter(due).collect();
        assert!(waiting.is_empty(), "teardowns without answer: {waiting:?}");
        assert!(self.released.is_empty(), "released and never freed: {:?}", self.released);
        for report in core.channel_reports() {
            let open = matches!(report.state, ChannelState::Open | ChannelState::Faulted);
            let told = report.relid.is_some_and(|relid| self.open.contains(&relid));
            assert_eq!(open, told, "relid {:?} is {:?}", report.relid, report.state);
        }
    }

    pub fn on_unbind(&mut self, relid: u32) {
        assert!(self.offered.remove(&relid).is_some(), "relid {relid} was not offered");
        if self.connected.is_some() {
            self.check_gone(relid, "its relid is free");
            self.rescinded.remove(&relid);
            self.released.remove(&relid);
            self.forget_opens(relid);
        }
    }

    pub fn on_quiesced(&self) {
        assert!(self.views.is_empty(), "quiesced with views {:?}", self.views);
        assert!(self.served.is_empty(), "quiesced while devices serve {:?}", self.served);
    }

    pub fn on_post(&mut self, core: &Core, at_once: &mut AtOnce, vp: u32, sint: u8, reply: &Reply) {
        assert!(vp < VPS && sint < 16, "posted to VP {vp} SINT {sint}");
        let take = |due: &mut u32| {
            assert_eq!(*due, 1, "not due: {reply:?}");
            *due = 0;
        };
        match reply {
            Reply::ReservedClosed(_) => return take(&mut at_once.reserved_closed),
            Reply::OpenResult { .. } if at_once.reserved_opened == 1 => {
                return take(&mut at_once.reserved_opened);
            }
            Reply::Version { .. } if at_once.foreign_version == 1 => {
                return take(&mut at_once.foreign_version);
            }
            Reply::Version { supported, state, .. } => {
                return self.on_version(vp, *supported == 1 && *state == 0);
            }
            Reply::Unloaded => {
                assert_eq!(self.wish.take(), Some(Wish::Unloaded));
                return self.on_quiesced();
            }
            _ => {}
        }
        assert!(self.connected.is_some(), "nobody is connected, yet: {reply:?}");
        assert_eq!((vp, sint), (self.vp, 2), "{reply:?}");
        match *reply {
            Reply::Offer { relid, instance, subchannel, .. } => {
                assert!(self.offers_requested && (1..=2047).contains(&relid));
                let twin = self.offered.values().any(|known| *known == (instance, subchannel));
                assert!(!twin, "offered twice: {instance} {subchannel}");
                assert!(
                    self.offered.insert(relid, (instance, subchannel)).is_none(),
                    "relid {relid} is taken"
                );
            }
            Reply::AllOffers => take(&mut at_once.all_offers),
            Reply::Modified { .. } => take(&mut at_once.modified),
            Reply::TlResult { .. } => take(&mut at_once.tl_result),
            Reply::Created { relid, id, status } => {
                assert!(decrease(&mut self.headers, &(relid, id)), "no header asked for {reply:?}");
                if status == 0 && core.gpadl(relid, id).is_some() {
                    self.accepted.entry((relid, id)).or_insert(false);
                }
            }
            Reply::Torndown(id) => self.on_torndown(core, at_once, id),
            Reply::OpenResult { relid, open_id, status } => {
                self.on_open_result(relid, open_id, status == 0);
            }
            Reply::Rescind(relid) => self.on_rescind(relid),
            Reply::Version { .. } | Reply::Unloaded | Reply::ReservedClosed(_) => unreachable!(),
        }
    }

    fn on_version(&mut self, vp: u32, accepted: bool) {
        let wish = self.wish.take();
        let Some(Wish::Version { vp: wanted, accepts }) = wish else {
            panic!("{wish:?} is due, not a version")
        };
        assert_eq!((vp, accepted), (wanted, accepts.is_some()));
        self.on_quiesced();
        assert!(self.offered.is_empty(), "relids of the old connection are left");
        (self.connected, self.vp) = (accepts, vp);
    }

    fn on_torndown(&mut self, core: &Core, at_once: &AtOnce, id: u32) {
        let gone = |place: &(u32, u32)| {
            place.1 == id
                && !self.views.contains_key(place)
                && core.gpadl(place.0, place.1).is_none()
        };
        let answered = self
            .accepted
            .iter()
            .find(|(place, waits)| **waits && gone(place))
            .map(|(place, _)| *place);
        if let Some(place) = answered {
            self.accepted.remove(&place);
            return;
        }
        // A courtesy, for a channel that is closing.
        let Some((relid, of)) = at_once.teardown else { panic!("TORNDOWN of {id:#x} is not due") };
        let reports = core.channel_reports();
        let state =
            reports.iter().find(|report| report.relid == Some(relid)).map(|report| report.state);
        assert!(
            of == id && matches!(state, Some(ChannelState::Draining | ChannelState::Revoked)),
            "TORNDOWN of {id:#x} on a channel that is {state:?}"
        );
        assert!(!self.views.contains_key(&(relid, id)), "TORNDOWN of {id:#x} while it has views");
    }

    fn on_open_result(&mut self, relid: u32, open_id: u32, succeeded: bool) {
        let place = (relid, open_id);
        assert!(
            decrease(&mut self.opens, &place),
            "nobody asked to open {relid} with id {open_id:#x}"
        );
        if succeeded {
            let due = self.opens.get(&place).copied().unwrap_or(0);
            let cancelled = self.cancelled.get(&place).copied().unwrap_or(0);
            assert!(
                cancelled <= due,
                "relid {relid} was opened after a CLOSE that came behind its OPEN"
            );
            self.open.insert(relid);
        } else {
            decrease(&mut self.cancelled, &place);
        }
    }

    fn forget_opens(&mut self, relid: u32) {
        self.opens.retain(|(of, _), _| *of != relid);
        self.cancelled.retain(|(of, _), _| *of != relid);
        self.open.remove(&relid);
    }

    fn on_rescind(&mut self, relid: u32) {
        let (instance, subchannel) = self.offered[&relid];
        assert!(self.rescinded.insert(relid), "relid {relid} rescinded twice");
        assert!(!self.released.contains(&relid), "relid {relid} was released and is rescinded");
        self.check_gone(relid, "it is rescinded");
        self.forget_opens(relid);
        if subchannel == 0 {
            let told = |relid: &u32| self.rescinded.contains(relid);
            let of_us = self.offered.iter().filter(|(_, known)| known.0 == instance);
            assert!(
                of_us.map(|(relid, _)| relid).all(told),
                "a subchannel must be rescinded first"
            );
        }
    }

    /// Checks that the channel cannot access the guest's memory any more, and that all requests
    /// about its GPADLs were answered.
    fn check_gone(&mut self, relid: u32, why: &str) {
        assert!(!self.served.contains(&relid), "a device serves relid {relid}, yet {why}");
        let views: Vec<_> = self.views.range((relid, 0)..=(relid, u32::MAX)).collect();
        assert!(views.is_empty(), "views {views:?}, yet {why}");
        let of_channel = self.headers.range((relid, 0)..=(relid, u32::MAX)).next();
        assert!(of_channel.is_none(), "headers without answer {of_channel:?}, yet {why}");
        let waiting = self.accepted.iter().find(|(place, waits)| place.0 == relid && **waits);
        assert!(waiting.is_none(), "a teardown without answer {waiting:?}, yet {why}");
        self.accepted.retain(|place, _| place.0 != relid);
    }
}
