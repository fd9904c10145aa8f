//! A device's part of an open channel.

use std::convert::Infallible;
use std::os::fd::RawFd;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::warn;
use vmbus_device::{ChannelHandler, Completed, Outbox};
use vmbus_host::Channel;
use vmbus_log::LogRateLimiter;
use vmbus_ring::{Packet, PacketKind};

use crate::port::Port;
use crate::protocol::{MAX_PACKET, Rejected, keyboard, mouse};
use crate::queue::{KeyQueue, ReportQueue};

/// Events between two writes to the ring.
const BATCH: usize = 64;

/// The difference between the keyboard and the mouse.
pub trait Protocol: Send + Sync + 'static {
    /// The name in log lines.
    const NAME: &'static str;
    /// The state of a channel.
    type Session: Clone + Default + Send + Serialize + DeserializeOwned + 'static;
    /// The events that wait for the guest.
    type Queue: Default + Send + std::fmt::Debug + 'static;

    /// Handles a packet of the guest. Returns messages to it, and the version that was refused, if
    /// it was.
    ///
    /// # Errors
    /// [`Rejected`]: the packet has no effect and no answer.
    fn handle(
        session: &mut Self::Session,
        queue: &mut Self::Queue,
        packet: &[u8],
    ) -> Result<(Vec<Vec<u8>>, Option<Rejected>), Rejected>;

    /// Returns whether the guest takes events.
    fn is_ready(session: &Self::Session) -> bool;

    /// Takes the next event, as a message.
    fn next(queue: &mut Self::Queue) -> Option<Vec<u8>>;
}

/// The protocol of the keyboard.
#[derive(Debug)]
pub struct KeyboardProtocol;

/// The protocol of the mouse.
#[derive(Debug)]
pub struct MouseProtocol;

impl Protocol for KeyboardProtocol {
    const NAME: &'static str = "keyboard";
    type Session = keyboard::Session;
    type Queue = KeyQueue;

    fn handle(
        session: &mut keyboard::Session,
        queue: &mut KeyQueue,
        packet: &[u8],
    ) -> Result<(Vec<Vec<u8>>, Option<Rejected>), Rejected> {
        Ok(match session.handle(packet)? {
            keyboard::Outcome::Reply { message, refused } => (vec![message], refused),
            keyboard::Outcome::Leds(leds) => {
                queue.leds = Some(leds);
                (Vec::new(), None)
            }
        })
    }

    fn is_ready(session: &keyboard::Session) -> bool {
        session.is_ready()
    }

    fn next(queue: &mut KeyQueue) -> Option<Vec<u8>> {
        queue.pop().map(keyboard::event)
    }
}

impl Protocol for MouseProtocol {
    const NAME: &'static str = "mouse";
    type Session = mouse::Session;
    type Queue = ReportQueue;

    fn handle(
        session: &mut mouse::Session,
        _queue: &mut ReportQueue,
        packet: &[u8],
    ) -> Result<(Vec<Vec<u8>>, Option<Rejected>), Rejected> {
        session.handle(packet).map(|outcome| (outcome.replies, outcome.refused))
    }

    fn is_ready(session: &mouse::Session) -> bool {
        session.is_ready()
    }

    fn next(queue: &mut ReportQueue) -> Option<Vec<u8>> {
        queue.pop().map(mouse::report)
    }
}

/// Serves a channel. Its end disconnects the sink.
pub(crate) struct InputHandler<P: Protocol> {
    port: Arc<Port<P::Queue>>,
    session: P::Session,
    log: Arc<LogRateLimiter>,
    /// The ring had no space: events stay in their queue until it has.
    is_blocked: bool,
}

impl<P: Protocol> ChannelHandler for InputHandler<P> {
    type Payload = Vec<u8>;
    type Error = Infallible;
    type State = P::Session;

    fn packet(&mut self, packet: &Packet<'_>, outbox: &mut Outbox) -> Result<(), Infallible> {
        if packet.kind() != PacketKind::InBand {
            self.refuse(&format_args!("a packet of kind {:?}", packet.kind()));
            return Ok(());
        }
        // The guest can change a packet at any moment: only this copy is looked at.
        let mut bytes = [0; MAX_PACKET];
        let length = packet.read_payload(&mut bytes);
        let packet = bytes.get(..length).unwrap_or_default();
        let handled = P::handle(&mut self.session, &mut self.port.lock().queue, packet);
        match handled {
            Ok((replies, refused)) => {
                replies.into_iter().for_each(|reply| outbox.notify(reply));
                if let Some(refused) = refused {
                    self.refuse(&refused);
                }
            }
            Err(rejected) => self.refuse(&rejected),
        }
        // After the replies, so that no event precedes them.
        self.port.set_ready(P::is_ready(&self.session));
        Ok(())
    }

    fn complete(&mut self, outbox: &mut Outbox) -> Completed {
        if self.is_blocked {
            return Completed::Nothing;
        }
        let mut state = self.port.lock();
        let mut sent = 0;
        while sent < BATCH
            && let Some(message) = P::next(&mut state.queue)
        {
            outbox.notify(message);
            sent += 1;
        }
        state.counters.sent += sent as u64;
        if sent == BATCH {
            return Completed::CallAgain;
        }
        self.port.clear_event(&state);
        if sent == 0 { Completed::Nothing } else { Completed::Some }
    }

    fn delivered(&mut self, channel: &Channel) {
        self.is_blocked = channel.outgoing.is_waiting();
    }

    fn events(&self, events: &mut Vec<RawFd>) {
        if !self.is_blocked {
            events.push(self.port.event_fd());
        }
    }

    fn quiesce(&self) -> Option<P::Session> {
        Some(self.session.clone())
    }
}

impl<P: Protocol> InputHandler<P> {
    pub(crate) fn new(
        port: Arc<Port<P::Queue>>,
        session: P::Session,
        log: Arc<LogRateLimiter>,
    ) -> Self {
        port.set_ready(P::is_ready(&session));
        Self { port, session, log, is_blocked: false }
    }

    fn refuse(&self, cause: &dyn std::fmt::Display) {
        self.port.lock().counters.refused += 1;
        let device = P::NAME;
        self.log
            .log(|left_out| warn!(device, %cause, left_out, "a message of the guest is ignored"));
    }
}

impl<P: Protocol> Drop for InputHandler<P> {
    fn drop(&mut self) {
        self.port.set_ready(false);
    }
}
