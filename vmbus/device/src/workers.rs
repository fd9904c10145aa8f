//! The channels of one device: options, start, kick, pause and resume.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tracing::warn;
use vmbus_host::Channel;

use crate::handler::ChannelHandler;
use crate::inline::InlineWorkers;
use crate::limits::{MAX_BUSY_POLL, MAX_PAUSE, THREAD_STACK};
use crate::quiesce::Quiesced;
use crate::shared::Shared;
use crate::shared_loop::SharedLoop;
use crate::wake;
use crate::worker::Worker;

/// Options of the workers of a device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerOptions {
    /// Serves the channels inline, in calls to [`InlineWorkers::serve`]. Default: threads.
    pub inline: Option<InlineWorkers>,
    /// Serves the channels in this thread together with others. Ignored with `inline`. Default: a
    /// thread for each channel.
    pub shared_loop: Option<SharedLoop>,
    /// Maximum poll window before a thread sleeps; it polls only while that pays. Zero: never.
    /// Default and maximum: 50 us.
    pub busy_poll: Duration,
    /// Lets a thread delay the interrupt for replies while many requests are in flight and the
    /// delay makes them finish faster. At most 2 ms, usually far less. Default: true.
    pub moderation: bool,
    /// Timeout of a pause for requests in flight. Default: 10 s.
    pub pause_timeout: Duration,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            inline: None,
            shared_loop: None,
            busy_poll: MAX_BUSY_POLL,
            moderation: true,
            pause_timeout: MAX_PAUSE,
        }
    }
}

impl WorkerOptions {
    /// Serves the channels with `inline` instead of threads.
    #[must_use]
    pub fn inline(mut self, inline: InlineWorkers) -> Self {
        self.inline = Some(inline);
        self
    }

    /// Serves the channels in the thread of `shared_loop` instead of a thread for each.
    #[must_use]
    pub fn shared_loop(mut self, shared_loop: SharedLoop) -> Self {
        self.shared_loop = Some(shared_loop);
        self
    }

    /// Sets the maximum poll window.
    #[must_use]
    pub fn busy_poll(mut self, limit: Duration) -> Self {
        self.busy_poll = limit;
        self
    }

    /// Enables or disables interrupt moderation.
    #[must_use]
    pub fn moderation(mut self, wanted: bool) -> Self {
        self.moderation = wanted;
        self
    }

    /// Sets the timeout of pauses.
    #[must_use]
    pub fn pause_timeout(mut self, timeout: Duration) -> Self {
        self.pause_timeout = timeout;
        self
    }
}

/// The workers of one device. `S`: see [`ChannelHandler::State`]. Clones are handles to the same
/// workers.
#[derive(Debug)]
pub struct Workers<S = ()> {
    shared: Arc<Shared<S>>,
    options: Arc<WorkerOptions>,
}

impl<S> Clone for Workers<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), options: Arc::clone(&self.options) }
    }
}

impl<S: Clone + Send + 'static> Workers<S> {
    /// Returns the workers of the device `name`. Log lines have the name, and thread names its
    /// first characters.
    pub fn new(name: impl Into<String>, options: WorkerOptions) -> Self {
        // Inline workers do not sleep.
        let busy_poll = if options.inline.is_some() { Duration::ZERO } else { options.busy_poll };
        Self {
            shared: Arc::new(Shared::new(name.into(), busy_poll, options.moderation)),
            options: Arc::new(options),
        }
    }

    /// Serves `channel` with `handler` until it closes, in a thread or inline.
    ///
    /// # Errors
    /// The system's: out of file descriptors, memory or threads.
    pub fn start<H: ChannelHandler<State = S>>(
        &self,
        channel: Channel,
        handler: H,
    ) -> io::Result<()> {
        self.launch(channel, handler, None)
    }

    /// Serves a restored channel, for [`vmbus_host::Device::restore`]. The device is paused until
    /// [`Workers::resume`].
    ///
    /// # Errors
    /// See [`Workers::start`].
    pub fn restore<H: ChannelHandler<State = S>>(
        &self,
        channel: Channel,
        handler: H,
        packets: Vec<crate::SavedPacket>,
        state: S,
    ) -> io::Result<()> {
        self.shared.pause().set(true);
        self.launch(channel, handler, Some(Quiesced::new(packets, state)))
    }

    /// Wakes all workers: their handlers' shared state has changed.
    pub fn kick(&self) {
        self.shared.kick();
    }

    /// Pauses the device: its workers take no packets. Waits until each is quiesced, for at most
    /// [`WorkerOptions::pause_timeout`]. Logs the number of workers that are not; their channels
    /// cannot be saved.
    pub fn pause(&self) {
        let shared = &self.shared;
        shared.pause().set(true);
        shared.kick();
        let mut timeout = self.options.pause_timeout;
        if let Some(inline) = &self.options.inline {
            inline.quiesce(shared, timeout);
            timeout = Duration::ZERO;
        }
        let running = shared.pause().wait(timeout);
        if running != 0 {
            let device = shared.name();
            warn!(
                device,
                running,
                "a paused device still has requests in flight: it cannot be saved until they end"
            );
        }
    }

    /// Ends the pause.
    pub fn resume(&self) {
        self.shared.pause().set(false);
        self.shared.kick();
    }

    /// Returns the state of channel `subchannel`, or `None` if it is not open or not quiesced.
    pub fn quiesced(&self, subchannel: u16) -> Option<Quiesced<S>> {
        self.shared.pause().quiesced(subchannel)
    }

    /// Serialises the state of channel `subchannel`, for
    /// [`Device::save`](vmbus_host::Device::save): a [`SavedChannel`](crate::SavedChannel). `None`
    /// as for [`Workers::quiesced`], or the state is longer than `form` allows.
    #[cfg(feature = "serde")]
    pub fn save(&self, subchannel: u16, form: crate::SavedForm) -> Option<Vec<u8>>
    where
        S: serde::Serialize,
    {
        form.channel_to_bytes(self.quiesced(subchannel)?)
    }

    /// Returns the number of interrupts delayed by all workers, including ended ones.
    pub fn moderated(&self) -> u64 {
        self.shared.moderated()
    }

    /// Returns the options.
    pub fn options(&self) -> &WorkerOptions {
        &self.options
    }

    fn launch<H: ChannelHandler<State = S>>(
        &self,
        channel: Channel,
        handler: H,
        restored: Option<Quiesced<S>>,
    ) -> io::Result<()> {
        // Linux shows 15 bytes of a thread's name.
        let name: String = self.shared.name().chars().filter(|c| *c != '\0').take(9).collect();
        let name = format!("{name}-ch{}", channel.subchannel());
        let worker = Worker::new(Arc::clone(&self.shared), channel, handler, restored)?;
        match (&self.options.inline, &self.options.shared_loop) {
            (Some(inline), _) => inline.add(worker),
            (None, Some(shared_loop)) => shared_loop.add(worker),
            (None, None) => {
                thread::Builder::new().name(name).stack_size(THREAD_STACK).spawn(move || {
                    wake::sleep_exactly();
                    contain(worker);
                })?;
            }
        }
        Ok(())
    }
}

/// Runs a worker and contains its panics, so that only its channel is lost.
fn contain<H: ChannelHandler>(mut worker: Worker<H>) {
    let end = catch_unwind(AssertUnwindSafe(|| worker.run()));
    worker.report_end(end);
    // Dropping the worker drops its handler, then returns the channel to the bus.
}
