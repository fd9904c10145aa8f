//! Opens of channels in progress: the requests to devices and their answers.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use super::lock::lock;
use crate::core::{ChannelKey, OpenParams};
use crate::device::{ChannelShared, Device};

/// A device, which threads call one at a time. The caller holds no other lock of the bus.
pub(super) struct DeviceSlot {
    pub(super) open_blocks: bool,
    pub(super) device: Mutex<Box<dyn Device>>,
}

/// A channel for a device.
pub(super) struct Request {
    pub(super) key: ChannelKey,
    pub(super) serial: u64,
    pub(super) params: OpenParams,
    pub(super) device: Arc<DeviceSlot>,
    pub(super) doorbell: Arc<EventFd>,
    /// The bus is paused.
    pub(super) paused: bool,
    /// The device's saved state of a channel that was open when the bus was saved.
    pub(super) saved: Option<Vec<u8>>,
}

impl Request {
    /// Returns the request for the time after the pause.
    pub(super) fn after_pause(self) -> Self {
        Self { paused: false, ..self }
    }
}

/// A device's answer.
pub(super) struct Opening {
    pub(super) key: ChannelKey,
    /// The channel, or `None` if the device refused it.
    pub(super) taken: Option<Arc<ChannelShared>>,
    pub(super) reopened: bool,
}

/// Counts the opens in progress.
#[derive(Default)]
pub(super) struct Opens {
    count: Mutex<usize>,
    none_left: Condvar,
}

impl Opens {
    pub(super) fn begin(&self) {
        let mut count = lock(&self.count);
        *count = count.saturating_add(1);
    }

    pub(super) fn end(&self) {
        let mut count = lock(&self.count);
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.none_left.notify_all();
        }
    }

    /// Waits until no open is in progress. No new open may begin in the meantime.
    pub(super) fn wait_for_none(&self) {
        let count = self.none_left.wait_while(lock(&self.count), |count| *count != 0);
        drop(count.unwrap_or_else(PoisonError::into_inner));
    }
}
