//! The channels of one device: options, start, kick, pause and resume.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use tracing::warn;
use vmbus_host::Channel;
use vmbus_log::LogRateLimiter;
use vmm_sys_util::eventfd::EventFd;

use crate::handler::ChannelHandler;
use crate::inline::InlineWorkers;
use crate::limits::{MAX_BUSY_POLL, MAX_PAUSE};
use crate::quiesce::{Pause, Quiesced};
use crate::shared_loop::SharedLoop;
use crate::wake;
use crate::worker::Worker;

/// Stack of a worker's thread in bytes. It does not recurse and keeps its buffers on the heap.
pub(crate) const STACK: usize = 256 << 10;

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
}

impl<S> Clone for Workers<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S: Clone + Send + 'static> Workers<S> {
    /// Returns the workers of the device `name`. Log lines have the name, and thread names its
    /// first characters.
    pub fn new(name: impl Into<String>, options: WorkerOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                name: name.into(),
                options,
                kicks: Mutex::default(),
                pause: Arc::default(),
                moderated: AtomicU64::new(0),
                log: LogRateLimiter::default(),
            }),
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
        self.shared.pause.set(true);
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
        shared.pause.set(true);
        shared.kick();
        let timeout = shared.options.pause_timeout;
        if let Some(inline) = &shared.options.inline {
            inline.quiesce(shared, timeout);
        }
        let timeout = if shared.options.inline.is_some() { Duration::ZERO } else { timeout };
        let running = shared.pause.wait(timeout);
        if running != 0 {
            let device = &*shared.name;
            warn!(
                device,
                running,
                "a paused device still has requests in flight: it cannot be saved until they end"
            );
        }
    }

    /// Ends the pause.
    pub fn resume(&self) {
        self.shared.pause.set(false);
        self.shared.kick();
    }

    /// Returns the state of channel `subchannel`, or `None` if it is not open or not quiesced.
    pub fn quiesced(&self, subchannel: u16) -> Option<Quiesced<S>> {
        self.shared.pause.quiesced(subchannel)
    }

    /// Returns the number of interrupts delayed by all workers, including ended ones.
    pub fn moderated(&self) -> u64 {
        self.shared.moderated.load(Ordering::Relaxed)
    }

    /// Returns the options.
    pub fn options(&self) -> &WorkerOptions {
        &self.shared.options
    }

    fn launch<H: ChannelHandler<State = S>>(
        &self,
        channel: Channel,
        handler: H,
        restored: Option<Quiesced<S>>,
    ) -> io::Result<()> {
        // Linux shows 15 bytes of a thread's name.
        let name: String = self.shared.name.chars().filter(|c| *c != '\0').take(9).collect();
        let name = format!("{name}-ch{}", channel.subchannel());
        let worker = Worker::new(Arc::clone(&self.shared), channel, handler, restored)?;
        let options = &self.shared.options;
        match (&options.inline, &options.shared_loop) {
            (Some(inline), _) => inline.add(worker),
            (None, Some(shared_loop)) => shared_loop.add(worker),
            (None, None) => {
                thread::Builder::new().name(name).stack_size(STACK).spawn(move || {
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

/// Drops a worker on a thread that serves others, and contains a panic of its handler.
pub(crate) fn drop_contained(worker: impl Sized) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(worker)));
}

/// The state that all workers of a device share.
#[derive(Debug)]
pub(crate) struct Shared<S> {
    name: String,
    options: WorkerOptions,
    /// The kick of each worker.
    kicks: Mutex<Vec<Weak<EventFd>>>,
    pause: Arc<Pause<S>>,
    /// Number of delayed interrupts.
    moderated: AtomicU64,
    /// Prevents a guest that breaks its channels from filling the log.
    log: LogRateLimiter,
}

impl<S: Clone> Shared<S> {
    /// Registers the kick of a worker. [`Shared::kick`] signals it while the worker exists.
    pub(crate) fn register(&self, kick: &Arc<EventFd>) {
        let mut kicks = self.kicks();
        kicks.retain(|kick| kick.strong_count() > 0);
        kicks.push(Arc::downgrade(kick));
    }

    pub(crate) fn kick(&self) {
        for kick in self.kicks().iter().filter_map(Weak::upgrade) {
            // A write fails only if the counter is full, and then the event is readable already.
            let _ = kick.write(1);
        }
    }

    #[inline]
    pub(crate) fn is_paused(&self) -> bool {
        self.pause.is_paused()
    }

    pub(crate) fn pause_state(&self) -> Arc<Pause<S>> {
        Arc::clone(&self.pause)
    }

    /// Counts a delayed interrupt.
    pub(crate) fn count_moderated(&self) {
        self.moderated.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn log(&self) -> &LogRateLimiter {
        &self.log
    }

    /// Returns the maximum poll window: zero for inline workers, which do not sleep.
    pub(crate) fn busy_poll_limit(&self) -> Duration {
        if self.options.inline.is_some() { Duration::ZERO } else { self.options.busy_poll }
    }

    /// Returns true if a worker's thread may delay interrupts.
    pub(crate) fn moderates(&self) -> bool {
        self.options.moderation
    }

    fn kicks(&self) -> MutexGuard<'_, Vec<Weak<EventFd>>> {
        self.kicks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
