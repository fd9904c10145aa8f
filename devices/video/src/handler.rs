//! The device's part of an open channel.

use std::convert::Infallible;
use std::sync::Arc;

use tracing::{debug, warn};
use vmbus_device::{ChannelHandler, Outbox};
use vmbus_log::LogRateLimiter;
use vmbus_ring::{Packet, PacketKind};

use crate::counters::SharedCounters;
use crate::protocol::{Effect, MAX_PACKET, Outcome, SavedSession, Session};
use crate::screen::Screen;

/// The part of the device that its handler uses.
pub(crate) struct VideoShared {
    pub(crate) screen: Screen,
    pub(crate) counters: SharedCounters,
    pub(crate) log: LogRateLimiter,
}

/// Serves the channel. Its end leaves the screen as it is: see [`crate::VideoDevice::reset`].
pub(crate) struct VideoHandler {
    shared: Arc<VideoShared>,
    session: Session,
    packet: Vec<u8>,
}

impl ChannelHandler for VideoHandler {
    type Payload = Vec<u8>;
    type Error = Infallible;
    type State = SavedSession;

    fn packet(&mut self, packet: &Packet<'_>, outbox: &mut Outbox) -> Result<(), Infallible> {
        if packet.kind() != PacketKind::InBand {
            self.refuse(&format_args!("a packet of kind {:?}", packet.kind()));
            return Ok(());
        }
        // The guest can change a packet at any moment: only this copy is looked at.
        let mut bytes = std::mem::take(&mut self.packet);
        bytes.resize(packet.payload_len().min(MAX_PACKET), 0);
        packet.read_payload(&mut bytes);
        let resolutions = self.shared.screen.resolutions();
        match self.session.handle(&bytes, &resolutions) {
            Ok(outcome) => self.apply(outcome, outbox),
            Err(rejected) => self.refuse(&rejected),
        }
        self.packet = bytes;
        Ok(())
    }

    fn quiesce(&self) -> Option<SavedSession> {
        Some(self.session.save())
    }
}

impl VideoHandler {
    pub(crate) fn new(shared: Arc<VideoShared>, session: Session) -> Self {
        Self { shared, session, packet: Vec::new() }
    }

    fn apply(&mut self, outcome: Outcome, outbox: &mut Outbox) {
        if let Some(refused) = outcome.refused {
            self.refuse(&refused);
        }
        let VideoShared { screen, counters, .. } = &*self.shared;
        match outcome.effect {
            Effect::None => {}
            Effect::Place(address) => self.place(address),
            Effect::Mode => {
                if screen.set_mode(self.session.mode()) {
                    counters.modes.add(1);
                    debug!(mode = ?self.session.mode(), "the screen has another mode");
                }
            }
            Effect::Dirty(rectangles) => {
                counters.updates.add(1);
                counters.rectangles.add(rectangles.len());
                screen.add_dirty(&rectangles);
            }
            Effect::PointerPosition { is_visible, x, y } => screen.move_pointer(is_visible, x, y),
            Effect::PointerShape(shape) => {
                counters.shapes.add(1);
                screen.set_shape(shape);
            }
        }
        // After the effect: the guest may use video memory once it is acknowledged.
        outcome.replies.into_iter().for_each(|reply| outbox.notify(reply));
    }

    fn place(&mut self, address: Option<u64>) {
        if address == self.session.address() {
            return;
        }
        match self.shared.screen.memory().place(address) {
            Ok(()) => {
                debug!(?address, "video memory has moved");
                self.session.placed(address);
            }
            Err(error) => self.refuse(&error),
        }
    }

    fn refuse(&self, cause: &dyn std::fmt::Display) {
        self.shared.counters.refused.add(1);
        self.shared
            .log
            .log(|left_out| warn!(%cause, left_out, "the video device ignores the guest"));
    }
}
