//! A service's part of an open channel.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, warn};
use vmbus_device::{ChannelHandler, Completed, Outbox};
use vmbus_log::LogRateLimiter;
use vmbus_ring::{Packet, PacketKind};

use crate::clock::Timer;
use crate::error::ServiceError;
use crate::operation::{Operation, Step};
use crate::port::Port;
use crate::protocol::{Link, MAX_PACKET, Received, Response, Session};
use crate::saved::{SavedService, SavedState};

/// Maximum number of packets in a row that the host did not expect. After them the channel is given
/// up, and the guest may open it again.
const MAX_UNEXPECTED: u32 = 100;

/// The guest sends packets that the host did not ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_UNEXPECTED} packets in a row that the host did not expect")]
pub(crate) struct Flood;

/// Serves a channel. Its end fails all operations.
pub(crate) struct ServiceHandler {
    port: Arc<Port>,
    session: Session,
    timer: Timer,
    is_offer_sent: bool,
    /// The operation that has sent its last request, or waits.
    current: Option<Box<dyn Operation>>,
    /// The response with which it continues.
    response: Option<Response>,
    unexpected: u32,
    log: Arc<LogRateLimiter>,
}

impl ServiceHandler {
    pub(crate) fn new(
        port: Arc<Port>,
        session: Session,
        timer: Timer,
        log: Arc<LogRateLimiter>,
    ) -> Self {
        let mut state = port.lock();
        state.is_open = true;
        state.link = Some(session.link());
        state.is_unresponsive = session.is_unresponsive();
        drop(state);
        Self {
            port,
            session,
            timer,
            is_offer_sent: false,
            current: None,
            response: None,
            unexpected: 0,
            log,
        }
    }

    fn reject(&mut self, cause: &dyn std::fmt::Display) -> Result<(), Flood> {
        self.port.lock().counters.rejected += 1;
        self.unexpected += 1;
        let service = self.port.kind.name();
        self.log
            .log(|left_out| warn!(service, %cause, left_out, "a message of the guest is ignored"));
        if self.unexpected < MAX_UNEXPECTED { Ok(()) } else { Err(Flood) }
    }

    /// Acts on the agreement about versions.
    fn link_changed(&mut self, now: Instant) {
        let service = self.port.kind.name();
        self.port.lock().link = Some(self.session.link());
        let waiting = match self.session.link() {
            Link::Negotiating => return,
            Link::Ready(agreed) => {
                debug!(service, version = %agreed.message, "the guest has connected");
                self.port.background.ready(agreed, now);
                return;
            }
            Link::NoCommonVersion => {
                debug!(service, "the guest supports no version of it");
                std::mem::take(&mut self.port.lock().queue)
            }
            Link::Invalid => {
                self.log.log(|left_out| {
                    warn!(service, left_out, "the guest's choice of a version is invalid");
                });
                std::mem::take(&mut self.port.lock().queue)
            }
        };
        fail_all(waiting, &ServiceError::NoCommonVersion(self.port.kind));
    }

    /// Ends requests and operations whose time is over.
    fn expire(&mut self, now: Instant) {
        if self.session.expire(now) {
            let mut state = self.port.lock();
            state.counters.timeouts += 1;
            state.is_unresponsive = self.session.is_unresponsive();
            drop(state);
            if let Some(operation) = self.current.take() {
                operation.fail(ServiceError::NoAnswer(self.port.kind));
            }
        }
        let mut state = self.port.lock();
        let (over, waiting) = std::mem::take(&mut state.queue)
            .into_iter()
            .partition::<VecDeque<_>, _>(|queued| queued.deadline <= now);
        state.queue = waiting;
        drop(state);
        let kind = self.port.kind;
        let error = match self.session.link() {
            Link::Negotiating => ServiceError::NoDaemon(kind),
            _ if self.session.is_unresponsive() => ServiceError::Unresponsive(kind),
            _ => ServiceError::Busy(kind),
        };
        fail_all(over, &error);
    }

    /// Continues the current operation, or begins the next one, until a request is outstanding or
    /// nothing is left. Returns whether a request was sent.
    fn progress(&mut self, now: Instant, outbox: &mut Outbox) -> bool {
        while self.session.is_idle() {
            let Link::Ready(agreed) = self.session.link() else { return false };
            if self.current.is_none() {
                self.current = self.next_operation(now);
            }
            let Some(operation) = &mut self.current else { return false };
            match operation.next(self.response.take(), agreed) {
                Step::Wait => return false,
                Step::Done => self.current = None,
                Step::Send { body, timeout } => {
                    let Some(packet) = self.session.request(&body, now, timeout) else {
                        return false;
                    };
                    self.port.lock().counters.requests += 1;
                    outbox.notify(packet);
                    return true;
                }
            }
        }
        false
    }

    fn next_operation(&self, now: Instant) -> Option<Box<dyn Operation>> {
        // The background first: a thaw or a time that is due must not wait for a client.
        let background = &self.port.background;
        if background.due().is_some_and(|due| due <= now)
            && let Some(operation) = background.operation(now)
        {
            return Some(operation);
        }
        Some(self.port.lock().queue.pop_front()?.operation)
    }

    /// Returns the time at which the worker has work without an event.
    fn next_time(&self) -> Option<Instant> {
        let queued = self.port.lock().queue.iter().map(|queued| queued.deadline).min();
        let can_begin = self.session.is_idle() && self.current.is_none();
        let due = self.port.background.due().filter(|_| can_begin);
        [self.session.deadline(), queued, due].into_iter().flatten().min()
    }
}

impl ChannelHandler for ServiceHandler {
    type Payload = Vec<u8>;
    type Error = Flood;
    type State = SavedState;

    fn packet(&mut self, packet: &Packet<'_>, _outbox: &mut Outbox) -> Result<(), Flood> {
        if packet.kind() != PacketKind::InBand {
            return self.reject(&format_args!("a packet of kind {:?}", packet.kind()));
        }
        // The guest can change a packet at any moment: only this copy is looked at.
        let mut bytes = vec![0; packet.payload_len().min(MAX_PACKET)];
        packet.read_payload(&mut bytes);
        match self.session.receive(&bytes) {
            Ok(Received::Link) => {
                let now = self.port.clock.now();
                self.link_changed(now);
            }
            Ok(Received::Response(response)) => {
                self.port.lock().counters.responses += 1;
                self.response = Some(response);
            }
            Ok(Received::Late) => {
                let mut state = self.port.lock();
                state.counters.late += 1;
                state.is_unresponsive = self.session.is_unresponsive();
                drop(state);
                self.port.background.late();
            }
            Err(rejected) => return self.reject(&rejected),
        }
        self.unexpected = 0;
        Ok(())
    }

    fn complete(&mut self, outbox: &mut Outbox) -> Completed {
        let now = self.port.clock.now();
        self.port.clear_event();
        self.timer.clear(now);
        if std::mem::take(&mut self.port.lock().is_resumed) {
            self.session.resume(now);
            self.port.background.resumed(now);
        }
        let mut is_sent = !self.is_offer_sent;
        if is_sent {
            self.is_offer_sent = true;
            outbox.notify(self.session.offer());
        }
        self.expire(now);
        is_sent |= self.progress(now, outbox);
        self.timer.arm(self.next_time());
        if is_sent { Completed::Some } else { Completed::Nothing }
    }

    fn events(&self, events: &mut Vec<RawFd>) {
        events.extend([self.port.event_fd(), self.timer.fd()]);
    }

    fn quiesce(&self) -> Option<SavedState> {
        let mut service = SavedService::default();
        self.port.background.save(&mut service);
        Some(SavedState { session: self.session.save(), service })
    }
}

impl Drop for ServiceHandler {
    fn drop(&mut self) {
        let mut state = self.port.lock();
        state.is_open = false;
        state.link = None;
        state.is_unresponsive = false;
        let waiting = std::mem::take(&mut state.queue);
        drop(state);
        let closed = ServiceError::Closed(self.port.kind);
        if let Some(operation) = self.current.take() {
            operation.fail(closed.clone());
        }
        fail_all(waiting, &closed);
        self.port.background.closed();
    }
}

fn fail_all(waiting: VecDeque<crate::port::Queued>, error: &ServiceError) {
    for queued in waiting {
        queued.operation.fail(error.clone());
    }
}
