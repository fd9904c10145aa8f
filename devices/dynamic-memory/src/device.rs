//! The device.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmbus_device::{SavedChannel, SavedForm, WorkerOptions, Workers};
use vmbus_host::{Channel, Device, Offer, OpenError};
use vmbus_protocol::Guid;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::handler::{MemoryHandler, SavedState, Shared};
use crate::host::HostMemory;
use crate::policy::{Bounds, Policy};
use crate::protocol::{PageRange, Session};
use crate::state::{SetError, State, Status};

/// {525074dc-8985-46e2-8057-a307dc18a502}: the class of dynamic memory.
pub const DYNAMIC_MEMORY: Guid =
    Guid::new(0x5250_74dc, 0x8985, 0x46e2, [0x80, 0x57, 0xa3, 0x07, 0xdc, 0x18, 0xa5, 0x02]);

/// {1eccfd72-4b41-45ef-b73a-4a6e44c12924}: the one instance of a machine.
pub const DYNAMIC_MEMORY_INSTANCE: Guid =
    Guid::new(0x1ecc_fd72, 0x4b41, 0x45ef, [0xb7, 0x3a, 0x4a, 0x6e, 0x44, 0xc1, 0x29, 0x24]);

/// The form of the channel's saved state. A restore checks all of it. The content of memory is not
/// part of it; pages of the balloon need none. The maximum is a balloon of scattered pages in a
/// guest of some GiB. The format must be incremented with every change of [`SavedState`].
const FORM: SavedForm = SavedForm::new(1, 64 << 20);

/// Options of the device.
pub struct DynamicMemoryOptions {
    /// The bounds of the guest's memory.
    pub bounds: Bounds,
    /// The thread of the channel. It needs one of its own: the kernel may need a while to free
    /// pages.
    pub workers: WorkerOptions,
    /// Returns the time since some moment, for the delays of the policy.
    pub clock: Box<dyn Fn() -> Duration + Send + Sync>,
}

impl DynamicMemoryOptions {
    /// Returns options with a thread that does not poll, and the host's clock.
    pub fn new(bounds: Bounds) -> Self {
        let begin = Instant::now();
        Self {
            bounds,
            workers: WorkerOptions::default().busy_poll(Duration::ZERO).moderation(false),
            clock: Box::new(move || begin.elapsed()),
        }
    }
}

impl std::fmt::Debug for DynamicMemoryOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DynamicMemoryOptions")
            .field("bounds", &self.bounds)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

/// Dynamic memory. Clones are handles to the same device: the bus gets one, and its owner keeps
/// another.
#[derive(Clone)]
pub struct DynamicMemory {
    shared: Arc<Shared>,
    workers: Workers<SavedState>,
    max_pages: u64,
}

impl DynamicMemory {
    /// Returns the device of a machine with the memory `host`.
    ///
    /// # Errors
    /// The host has too few file descriptors.
    pub fn new(options: DynamicMemoryOptions, host: Arc<dyn HostMemory>) -> io::Result<Self> {
        let changed = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let state = State::new(options.bounds, host);
        Ok(Self {
            shared: Arc::new(Shared::new(state, changed, options.clock)),
            workers: Workers::new("dynamic-memory", options.workers),
            max_pages: options.bounds.max,
        })
    }

    /// Sets the size that the guest shall have, in bytes, from the least to the most of its bounds.
    /// It gets more if its demand is higher. `None`: its demand decides. Does not wait.
    ///
    /// # Errors
    /// [`SetError`]: the size is out of bounds.
    pub fn set_size(&self, bytes: Option<u64>) -> Result<(), SetError> {
        self.shared.lock().set_wanted(bytes)?;
        // A write fails only if the counter is full, and then it is readable already.
        let _ = self.shared.changed.write(1);
        Ok(())
    }

    /// Returns the state.
    pub fn status(&self) -> Status {
        self.shared.lock().status((self.shared.clock)())
    }

    /// Returns pages to the host that the guest has reported to be free. Ranges outside of its RAM
    /// are refused. `shared` are the pages of GPADLs ([`vmbus_host::VmBus::shared_pages`]), which
    /// stay. Waits for the kernel.
    pub fn discard_free_pages(&self, ranges: &[PageRange], shared: &[Range<u64>]) {
        let (free, host) = {
            let mut state = self.shared.lock();
            (state.hint(ranges, shared), state.host())
        };
        let (mut discarded, mut failed) = (0, None);
        for range in free {
            match host.discard(range) {
                Ok(()) => discarded += range.pages,
                Err(error) => failed = Some(error),
            }
        }
        self.shared.lock().hinted(discarded, failed.as_ref());
    }

    /// The machine was reset: all RAM that it booted with belongs to the guest, and no other. The
    /// bus's reset must precede it.
    pub fn reset(&self) {
        self.shared.lock().reset();
    }

    fn handler(&self, channel: &Channel, session: Session) -> MemoryHandler {
        MemoryHandler::new(Arc::clone(&self.shared), channel.handle(), session)
    }

    fn restore_channel(&self, channel: Channel, bytes: &[u8]) -> Result<(), String> {
        let SavedChannel { packets, state, .. } =
            FORM.parse::<SavedChannel<SavedState>>(bytes).map_err(|error| error.to_string())?;
        let session = state.session.clone().ok_or("it has no session")?;
        let now = (self.shared.clock)();
        {
            let mut shared = self.shared.lock();
            shared.restore_added(state.plugged, state.added)?;
            shared.restore_balloon(&state.balloon).inspect_err(|_| shared.disconnect())?;
            shared.policy = state.policy.clone().unwrap_or_else(|| Policy::new(None));
            if session.is_ready() {
                shared.connect(&session, now, Duration::from_millis(state.age));
            }
        }
        let handler = self.handler(&channel, session);
        let restored = self.workers.restore(channel, handler, packets, state);
        restored.map_err(|error| error.to_string())
    }
}

impl std::fmt::Debug for DynamicMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DynamicMemory").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Device for DynamicMemory {
    fn offer(&self) -> Offer {
        Offer::new(DYNAMIC_MEMORY, DYNAMIC_MEMORY_INSTANCE, 0)
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        let handler = self.handler(&channel, Session::new(self.max_pages));
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
        self.restore_channel(channel, state).map_err(|error| {
            OpenError(format!("the saved state of dynamic memory cannot be used: {error}"))
        })
    }
}
