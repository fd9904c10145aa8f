//! Both devices.

use std::sync::Arc;

use vmbus_device::{SavedChannel, SavedForm, WorkerOptions, Workers};
use vmbus_host::{Channel, Device, Offer, OpenError};
use vmbus_log::LogRateLimiter;
use vmbus_protocol::Guid;
use vmbus_protocol::offer::OfferFlags;

use crate::handler::{InputHandler, KeyboardProtocol, MouseProtocol, Protocol};
use crate::port::Port;

/// {f912ad6d-2b17-48ea-bd65-f927a61c7684}: the class of synthetic keyboards.
pub const KEYBOARD: Guid =
    Guid::new(0xf912_ad6d, 0x2b17, 0x48ea, [0xbd, 0x65, 0xf9, 0x27, 0xa6, 0x1c, 0x76, 0x84]);

/// {d34b2567-b9b6-42b9-8778-0a4ec0b955bf}: the one keyboard of a machine.
pub const KEYBOARD_INSTANCE: Guid =
    Guid::new(0xd34b_2567, 0xb9b6, 0x42b9, [0x87, 0x78, 0x0a, 0x4e, 0xc0, 0xb9, 0x55, 0xbf]);

/// {cfa8b69e-5b4a-4cc0-b98b-8ba1a1f3f95a}: the class of synthetic mice.
pub const MOUSE: Guid =
    Guid::new(0xcfa8_b69e, 0x5b4a, 0x4cc0, [0xb9, 0x8b, 0x8b, 0xa1, 0xa1, 0xf3, 0xf9, 0x5a]);

/// {58f75a6d-d949-4320-99e1-a2a2576d581c}: the one mouse of a machine.
pub const MOUSE_INSTANCE: Guid =
    Guid::new(0x58f7_5a6d, 0xd949, 0x4320, [0x99, 0xe1, 0xa2, 0xa2, 0x57, 0x6d, 0x58, 0x1c]);

/// The type of a pipe of messages, in the offer's user data.
const MESSAGE_PIPE: u8 = 4;

/// The form of the channel's saved state. A restore checks all of it. Events that wait for the
/// guest are not saved: their viewer is gone. The maximum is a full outbox of events. The format
/// must be incremented with every change of the sessions' types.
const FORM: SavedForm = SavedForm::new(2, 1 << 20);

/// The keyboard of a machine. [`Input::new`](crate::Input::new) returns it.
pub type Keyboard = InputDevice<KeyboardProtocol>;

/// The mouse of a machine. [`Input::new`](crate::Input::new) returns it.
pub type Mouse = InputDevice<MouseProtocol>;

/// A keyboard or a mouse.
#[derive(Debug)]
pub struct InputDevice<P: Protocol> {
    offer: Offer,
    port: Arc<Port<P::Queue>>,
    workers: Workers<P::Session>,
    log: Arc<LogRateLimiter>,
}

impl Keyboard {
    pub(crate) fn new(
        port: Arc<Port<<KeyboardProtocol as Protocol>::Queue>>,
        workers: WorkerOptions,
    ) -> Self {
        Self::with_offer(Offer::new(KEYBOARD, KEYBOARD_INSTANCE, 0), port, workers)
    }
}

impl Mouse {
    pub(crate) fn new(
        port: Arc<Port<<MouseProtocol as Protocol>::Queue>>,
        workers: WorkerOptions,
    ) -> Self {
        let mut offer = Offer::new(MOUSE, MOUSE_INSTANCE, 0).flags(OfferFlags::NAMED_PIPE_MODE);
        offer.user_defined[0] = MESSAGE_PIPE;
        Self::with_offer(offer, port, workers)
    }
}

impl<P: Protocol> InputDevice<P> {
    fn with_offer(offer: Offer, port: Arc<Port<P::Queue>>, workers: WorkerOptions) -> Self {
        Self { offer, port, workers: Workers::new(P::NAME, workers), log: Arc::default() }
    }

    fn handler(&self, session: P::Session) -> InputHandler<P> {
        InputHandler::new(Arc::clone(&self.port), session, Arc::clone(&self.log))
    }
}

impl<P: Protocol> Device for InputDevice<P> {
    fn offer(&self) -> Offer {
        self.offer.clone()
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        Ok(self.workers.start(channel, self.handler(P::Session::default()))?)
    }

    fn pause(&mut self) {
        self.workers.pause();
    }

    fn resume(&mut self) {
        self.workers.resume();
    }

    fn save(&mut self, subchannel: u16) -> Option<Vec<u8>> {
        self.workers.save(subchannel, FORM)
    }

    fn restore(&mut self, channel: Channel, state: &[u8]) -> Result<(), OpenError> {
        let saved: SavedChannel<P::Session> = FORM.parse(state).map_err(|error| {
            OpenError(format!("the saved state of the {} cannot be used: {error}", P::NAME))
        })?;
        let handler = self.handler(saved.state.clone());
        Ok(self.workers.restore(channel, handler, saved.packets, saved.state)?)
    }
}
