//! The device.

use std::sync::Arc;

use tracing::warn;
use vmbus_device::{SavedChannel, WorkerOptions, Workers};
use vmbus_host::{Channel, Device, Offer, OpenError};
use vmbus_log::LogRateLimiter;
use vmbus_protocol::Guid;
use vmbus_protocol::offer::OfferFlags;

use crate::counters::{SharedCounters, VideoCounters};
use crate::handler::{VideoHandler, VideoShared};
use crate::memory::VideoMemory;
use crate::protocol::{Resolution, ResolutionError, SavedSession, Session};
use crate::saved::{FORM, RestoreError};
use crate::screen::Screen;

/// {da0a7802-e377-4aac-8e77-0558eb1073f8}: the class of synthetic video devices.
pub const VIDEO: Guid =
    Guid::new(0xda0a_7802, 0xe377, 0x4aac, [0x8e, 0x77, 0x05, 0x58, 0xeb, 0x10, 0x73, 0xf8]);

/// {5620e0c7-8062-4dce-aeb7-520c7ef76171}: the one video device of a machine.
pub const VIDEO_INSTANCE: Guid =
    Guid::new(0x5620_e0c7, 0x8062, 0x4dce, [0xae, 0xb7, 0x52, 0x0c, 0x7e, 0xf7, 0x61, 0x71]);

/// The type of a pipe of messages, in the offer's user data.
const MESSAGE_PIPE: u8 = 4;

/// A user's options for the video device.
#[derive(Clone, Debug)]
pub struct VideoOptions {
    /// The resolution that the guest is told to prefer.
    pub resolution: Resolution,
    /// The thread of the channel. A [`vmbus_device::SharedLoop`] suffices.
    pub workers: WorkerOptions,
}

impl Default for VideoOptions {
    fn default() -> Self {
        Self { resolution: Resolution::new(1024, 768), workers: WorkerOptions::default() }
    }
}

/// A video device. Clones are handles to the same device: the bus gets one, and its owner keeps
/// another.
#[derive(Clone)]
pub struct VideoDevice {
    shared: Arc<VideoShared>,
    workers: Arc<Workers<SavedSession>>,
}

impl VideoDevice {
    /// Returns a device with a blank screen over `memory`. The bytes of `memory` must be whole MiB;
    /// the guest reserves as many in a window for devices' memory.
    ///
    /// # Errors
    /// [`ResolutionError`]: the preferred resolution is out of range or does not fit.
    pub fn new(
        options: VideoOptions,
        memory: Arc<dyn VideoMemory>,
    ) -> Result<Self, ResolutionError> {
        options.resolution.check(memory.bytes().len() as u64)?;
        let shared = VideoShared {
            screen: Screen::new(memory, options.resolution),
            counters: SharedCounters::default(),
            log: LogRateLimiter::default(),
        };
        let workers = Arc::new(Workers::new("video", options.workers));
        Ok(Self { shared: Arc::new(shared), workers })
    }

    /// Returns the screen.
    pub fn screen(&self) -> &Screen {
        &self.shared.screen
    }

    /// Returns the counters.
    pub fn counters(&self) -> VideoCounters {
        self.shared.counters.read()
    }

    /// Makes the screen blank, and takes video memory from the guest. To be called when the guest
    /// resets, after its channels are closed.
    ///
    /// The end of the channel alone does not do that: firmware closes it when the system takes
    /// over, and the system draws into the firmware's frame buffer until it has a driver of its own
    /// (hid-video section 6).
    pub fn reset(&self) {
        self.screen().set_mode(None);
        if let Err(error) = self.screen().memory().place(None) {
            warn!(%error, "video memory could not be taken from the guest");
        }
    }

    fn restore_channel(&self, channel: Channel, state: &[u8]) -> Result<(), RestoreOrOpen> {
        let saved: SavedChannel<SavedSession> = FORM.parse(state).map_err(RestoreError::from)?;
        let screen = &self.shared.screen;
        let session = Session::restore(&saved.state, screen.vram()).map_err(RestoreError::from)?;
        screen.memory().place(session.address()).map_err(RestoreError::from)?;
        screen.set_mode(session.mode());
        let handler = VideoHandler::new(Arc::clone(&self.shared), session);
        Ok(self.workers.restore(channel, handler, saved.packets, saved.state)?)
    }
}

/// The error of a restore: of its state, or of the system.
#[derive(Debug, thiserror::Error)]
enum RestoreOrOpen {
    #[error(transparent)]
    State(#[from] RestoreError),
    #[error(transparent)]
    System(#[from] std::io::Error),
}

impl std::fmt::Debug for VideoDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VideoDevice").field("screen", self.screen()).finish_non_exhaustive()
    }
}

impl Device for VideoDevice {
    fn offer(&self) -> Offer {
        let megabytes = u16::try_from(self.shared.screen.vram() >> 20).unwrap_or(u16::MAX);
        let mut offer = Offer::new(VIDEO, VIDEO_INSTANCE, 0)
            .flags(OfferFlags::NAMED_PIPE_MODE)
            .mmio_megabytes(megabytes);
        offer.user_defined[0] = MESSAGE_PIPE;
        offer
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        let session = Session::new(self.shared.screen.vram());
        let handler = VideoHandler::new(Arc::clone(&self.shared), session);
        Ok(self.workers.start(channel, handler)?)
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
        self.restore_channel(channel, state).map_err(|error| OpenError(error.to_string()))
    }
}
