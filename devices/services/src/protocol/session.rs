//! One channel of a service: versions, one outstanding request, transaction ids, late responses.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::header::{Malformed, RawResponse, request};
use super::negotiation::{self, Agreed, Answer};
use super::{ServiceKind, Status};

/// The type of messages about versions.
const NEGOTIATE: u16 = 0;

/// Maximum number of requests that timed out and may still be answered. They fill the ring, so the
/// host sends no more of them: the guest does not respond.
pub const MAX_UNANSWERED: usize = 8;

/// A channel's state. It knows no time: its owner passes it the current one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    kind: ServiceKind,
    link: Link,
    /// The id of the next request.
    next: u8,
    outstanding: Option<Outstanding>,
    /// The ids of requests that timed out and were not answered since, oldest first.
    unanswered: Vec<u8>,
}

/// The state of the agreement on versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The guest has not answered yet. Linux answers for KVP, VSS and file copy only when its
    /// daemon has started, possibly never.
    Negotiating,
    /// Requests can be sent.
    Ready(Agreed),
    /// Host and guest have no version in common. The service is disabled until the channel is
    /// opened again.
    NoCommonVersion,
    /// The guest's answer was invalid. The service is disabled until the channel is opened again.
    Invalid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outstanding {
    id: u8,
    timeout: Duration,
    deadline: Instant,
}

/// The response to the outstanding request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: Status,
    /// The bytes after the headers, possibly with padding. Not validated.
    pub body: Vec<u8>,
}

/// The meaning of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// The answer to the offered versions: [`Session::link`] has changed.
    Link,
    /// The response to the outstanding request.
    Response(Response),
    /// A response to a request that timed out before. It has no effect.
    Late,
}

/// The error of a packet that the host does not expect. It has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The headers are invalid.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The message is of another service, or is an answer about versions that was given before.
    #[error("a message of type {0}")]
    Type(u16),
    /// No request has this transaction id.
    #[error("a response to request {0}, which does not exist")]
    Transaction(u8),
}

/// The part of a session that is saved. Versions are negotiated again after a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedSession {
    next: u8,
    unanswered: Vec<u8>,
}

impl Session {
    /// Returns the session of a channel that was just opened. Send [`Session::offer`] first.
    pub fn new(kind: ServiceKind) -> Self {
        Self { kind, link: Link::Negotiating, next: 0, outstanding: None, unanswered: Vec::new() }
    }

    /// Returns the first packet: the versions that the host offers.
    pub fn offer(&self) -> Vec<u8> {
        request(NEGOTIATE, Agreed::default(), u8::MAX, &negotiation::offer(self.kind))
    }

    /// Returns the state of the agreement on versions.
    pub fn link(&self) -> Link {
        self.link
    }

    /// Returns whether a request can be sent now.
    pub fn is_idle(&self) -> bool {
        matches!(self.link, Link::Ready(_)) && self.outstanding.is_none() && !self.is_unresponsive()
    }

    /// Returns whether so many requests timed out that no more are sent.
    pub fn is_unresponsive(&self) -> bool {
        self.unanswered.len() >= MAX_UNANSWERED
    }

    /// Returns the packet of a request, which is outstanding from now on. `None`: none can be sent,
    /// see [`Session::is_idle`].
    pub fn request(&mut self, body: &[u8], now: Instant, timeout: Duration) -> Option<Vec<u8>> {
        let Link::Ready(agreed) = self.link else { return None };
        if !self.is_idle() {
            return None;
        }
        let id = self.free_id();
        self.next = id.wrapping_add(1);
        self.outstanding = Some(Outstanding { id, timeout, deadline: now + timeout });
        Some(request(self.kind.message_type(), agreed, id, body))
    }

    /// Handles a packet of the guest.
    ///
    /// # Errors
    /// [`Rejected`]: the packet has no effect.
    pub fn receive(&mut self, packet: &[u8]) -> Result<Received, Rejected> {
        let RawResponse { kind, status, transaction, body } = RawResponse::read(packet)?;
        if kind == NEGOTIATE && self.link == Link::Negotiating {
            self.link = match negotiation::answer(self.kind, body) {
                Answer::Agreed(agreed) => Link::Ready(agreed),
                Answer::None => Link::NoCommonVersion,
                Answer::Invalid => Link::Invalid,
            };
            return Ok(Received::Link);
        }
        if kind != self.kind.message_type() {
            return Err(Rejected::Type(kind));
        }
        if self.outstanding.is_some_and(|outstanding| outstanding.id == transaction) {
            self.outstanding = None;
            return Ok(Received::Response(Response { status, body: body.to_vec() }));
        }
        match self.unanswered.iter().position(|id| *id == transaction) {
            Some(index) => {
                self.unanswered.remove(index);
                Ok(Received::Late)
            }
            None => Err(Rejected::Transaction(transaction)),
        }
    }

    /// Returns the time at which the outstanding request times out.
    pub fn deadline(&self) -> Option<Instant> {
        self.outstanding.map(|outstanding| outstanding.deadline)
    }

    /// Ends the outstanding request if its time is over, and returns whether it was.
    pub fn expire(&mut self, now: Instant) -> bool {
        match self.outstanding {
            Some(Outstanding { id, deadline, .. }) if deadline <= now => {
                self.outstanding = None;
                self.unanswered.push(id);
                true
            }
            _ => false,
        }
    }

    /// Starts the timeout of the outstanding request again, after a pause of the guest.
    pub fn resume(&mut self, now: Instant) {
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.deadline = now + outstanding.timeout;
        }
    }

    /// Returns the state to save.
    pub fn save(&self) -> SavedSession {
        let outstanding = self.outstanding.map(|outstanding| outstanding.id);
        let unanswered = self.unanswered.iter().copied().chain(outstanding).collect();
        SavedSession { next: self.next, unanswered }
    }

    /// Returns the session with a saved state, whose versions must be negotiated again. A response
    /// to a request from before is late. Of a state that no session has, the newest ids are taken.
    pub fn restore(kind: ServiceKind, saved: &SavedSession) -> Self {
        let mut unanswered = Vec::new();
        for id in &saved.unanswered {
            if !unanswered.contains(id) {
                unanswered.push(*id);
            }
        }
        // One less than the maximum: the guest may have been unresponsive because it was saved.
        let extra = unanswered.len().saturating_sub(MAX_UNANSWERED - 1);
        unanswered.drain(..extra);
        Self { next: saved.next, unanswered, ..Self::new(kind) }
    }

    /// Returns the next id that no request has.
    fn free_id(&self) -> u8 {
        let ids = (0..=u8::MAX).map(|step| self.next.wrapping_add(step));
        ids.into_iter().find(|id| !self.unanswered.contains(id)).unwrap_or(self.next)
    }
}
