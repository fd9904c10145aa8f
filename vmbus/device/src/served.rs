//! A device made of an offer and a handler, for devices without state of their own.

use vmbus_host::{Channel, Device, Offer, OpenError};

use crate::handler::ChannelHandler;
use crate::workers::{WorkerOptions, Workers};

/// Returns a device with the offer `offer`. Each opened channel gets a handler from `handler`.
/// `name`: see [`Workers::new`].
///
/// The device supports pauses. It saves no state, so a restored guest loses its channels and gets a
/// new offer of the device; implement [`Device`] on [`Workers`] where that is not enough.
pub fn serve<H, F>(
    name: &str,
    offer: Offer,
    handler: F,
    options: WorkerOptions,
) -> ServedDevice<H, F>
where
    H: ChannelHandler,
    F: FnMut(&Channel) -> H + Send,
{
    ServedDevice { offer, handler, workers: Workers::new(name, options) }
}

/// A device made by [`serve`].
#[derive(Debug)]
pub struct ServedDevice<H: ChannelHandler, F> {
    offer: Offer,
    handler: F,
    workers: Workers<H::State>,
}

impl<H: ChannelHandler, F: FnMut(&Channel) -> H + Send> Device for ServedDevice<H, F> {
    fn offer(&self) -> Offer {
        self.offer.clone()
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        let handler = (self.handler)(&channel);
        Ok(self.workers.start(channel, handler)?)
    }

    fn pause(&mut self) {
        self.workers.pause();
    }

    fn resume(&mut self) {
        self.workers.resume();
    }
}
