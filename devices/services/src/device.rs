//! The device of a service: its offer, the opening of its channel, save and restore.

use std::sync::Arc;

use vmbus_device::{SavedChannel, WorkerOptions, Workers};
use vmbus_host::{Channel, Device, Offer, OpenError};
use vmbus_log::LogRateLimiter;
use vmbus_protocol::offer::OfferFlags;

use crate::clock::Timer;
use crate::handler::ServiceHandler;
use crate::port::Port;
use crate::protocol::Session;
use crate::saved::{FORM, SavedState};

/// The type of a pipe of messages, in the offer's user data.
const MESSAGE_PIPE: u8 = 4;

/// A service as the bus knows it. [`Services::new`](crate::Services::new) returns it.
#[derive(Debug)]
pub struct ServiceDevice {
    port: Arc<Port>,
    workers: Workers<SavedState>,
    log: Arc<LogRateLimiter>,
}

impl ServiceDevice {
    pub(crate) fn new(port: Arc<Port>, workers: WorkerOptions) -> Self {
        let workers = Workers::new(port.kind.name(), workers);
        Self { port, workers, log: Arc::default() }
    }

    fn handler(&self, session: Session) -> std::io::Result<ServiceHandler> {
        let timer = Timer::new(self.port.clock.clone())?;
        Ok(ServiceHandler::new(Arc::clone(&self.port), session, timer, Arc::clone(&self.log)))
    }
}

impl Device for ServiceDevice {
    fn offer(&self) -> Offer {
        let kind = self.port.kind;
        let flags = OfferFlags::ENUMERATE_DEVICE_INTERFACE | OfferFlags::NAMED_PIPE_MODE;
        let mut offer = Offer::new(kind.class(), kind.instance(), 0).flags(flags);
        offer.user_defined[0] = MESSAGE_PIPE;
        offer
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        let handler = self.handler(Session::new(self.port.kind))?;
        Ok(self.workers.start(channel, handler)?)
    }

    fn pause(&mut self) {
        self.workers.pause();
    }

    fn resume(&mut self) {
        self.port.resumed();
        self.workers.resume();
    }

    fn save(&mut self, subchannel: u16) -> Option<Vec<u8>> {
        self.workers.save(subchannel, FORM)
    }

    fn restore(&mut self, channel: Channel, state: &[u8]) -> Result<(), OpenError> {
        let kind = self.port.kind;
        let saved: SavedChannel<SavedState> = FORM.parse(state).map_err(|error| {
            OpenError(format!("the saved state of the service {kind} cannot be used: {error}"))
        })?;
        self.port.background.restore(&saved.state.service);
        let handler = self.handler(Session::restore(kind, &saved.state.session))?;
        Ok(self.workers.restore(channel, handler, saved.packets, saved.state)?)
    }
}
