//! The device of one connection, as the bus sees it.

use std::sync::Arc;

use vmbus_host::{Channel, Device, Offer, OpenError};

use crate::shared::{DevicePause, Shared};

/// The device of one connection. The bus drops it when the guest has released the channel.
pub(crate) struct ConnectionDevice {
    offer: Offer,
    connection: u64,
    shared: Arc<Shared>,
    pause: DevicePause,
}

impl ConnectionDevice {
    pub(crate) fn new(offer: Offer, connection: u64, shared: Arc<Shared>) -> Self {
        let pause = DevicePause::new(Arc::clone(&shared));
        Self { offer, connection, shared, pause }
    }
}

impl Device for ConnectionDevice {
    fn offer(&self) -> Offer {
        self.offer.clone()
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        self.shared.tell(|inbox| {
            if inbox.stop {
                return Err(OpenError("the machine ends".to_owned()));
            }
            inbox.opened.push((self.connection, channel));
            Ok(())
        })
    }

    fn pause(&mut self) {
        self.pause.begin();
    }

    fn resume(&mut self) {
        self.pause.end();
    }

    // Not saved: the guest sees the end of the connection after a restore, as the host programs
    // behind it are gone.
}

impl Drop for ConnectionDevice {
    fn drop(&mut self) {
        self.shared.tell(|inbox| inbox.removed.push(self.connection));
    }
}
