//! Devices for tests: one of closures, and one that passes its channels to the test.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use vmbus_host::{Channel, Device, Offer, OpenError};

use crate::synic::lock;
use crate::workers::{Handler, Workers};

/// A device that consists of a function, which makes a handler for each opened channel.
pub struct Served<F> {
    offer: Offer,
    workers: Workers,
    open: F,
}

impl<F> Served<F>
where
    F: FnMut(&Channel) -> Result<Handler, OpenError> + Send + 'static,
{
    /// Returns a device with this `offer`. `open` is called for each channel, and the handler that
    /// it returns runs on `workers`.
    pub fn new(offer: Offer, workers: Workers, open: F) -> Self {
        Self { offer, workers, open }
    }
}

impl<F> Device for Served<F>
where
    F: FnMut(&Channel) -> Result<Handler, OpenError> + Send + 'static,
{
    fn offer(&self) -> Offer {
        self.offer.clone()
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        let handler = (self.open)(&channel)?;
        self.workers.run(channel, handler);
        Ok(())
    }
}

/// A device without a worker. Each opened channel waits in [`OpenedChannels`] for the test, which
/// drives it itself.
#[derive(Debug)]
pub struct ManualDevice {
    offer: Offer,
    opened: OpenedChannels,
}

/// The open channels of a [`ManualDevice`] that no test has taken.
#[derive(Clone, Debug, Default)]
pub struct OpenedChannels {
    state: Arc<Mutex<OpenedState>>,
}

#[derive(Debug, Default)]
struct OpenedState {
    channels: VecDeque<Channel>,
    refuse: u32,
}

impl ManualDevice {
    /// Returns the device and its open channels.
    #[must_use]
    pub fn new(offer: Offer) -> (Self, OpenedChannels) {
        let opened = OpenedChannels::default();
        (Self { offer, opened: opened.clone() }, opened)
    }
}

impl OpenedChannels {
    /// Removes and returns the channel that was opened first.
    #[must_use]
    pub fn take(&self) -> Option<Channel> {
        lock(&self.state).channels.pop_front()
    }

    /// Refuses the next `count` opens.
    pub fn refuse(&self, count: u32) {
        lock(&self.state).refuse = count;
    }
}

impl Device for ManualDevice {
    fn offer(&self) -> Offer {
        self.offer.clone()
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        let mut state = lock(&self.opened.state);
        if state.refuse != 0 {
            state.refuse -= 1;
            // The channel is dropped without the lock, because its drop calls the bus.
            drop(state);
            return Err(OpenError("refused by the test".to_owned()));
        }
        state.channels.push_back(channel);
        Ok(())
    }
}
