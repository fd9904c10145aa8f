//! The loop of one channel: taking packets, delivering replies, sleeping, ending.

use std::any::Any;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tracing::{debug, error, warn};
use vmbus_host::{Channel, WorkerCounters};
use vmbus_ring::{RingError, WriteError};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::busy_poll::BusyPoll;
use crate::handler::{ChannelHandler, Completed};
use crate::limits::{BATCH_PACKETS, MAX_DRAIN, TURN_ROUNDS};
use crate::moderation::Moderation;
use crate::outbox::Outbox;
use crate::quiesce::{Quiesced, WorkerGuard};
use crate::shared::Shared;
use crate::wait;

/// The worker of one channel.
pub(crate) struct Worker<H: ChannelHandler> {
    // Drop order: the handler must stop touching guest memory before the bus gets the channel back.
    handler: H,
    outbox: Outbox<H::Payload>,
    shared: Arc<Shared<H::State>>,
    kick: Arc<EventFd>,
    /// Kept to reuse their allocations.
    events: Vec<RawFd>,
    polls: Vec<libc::pollfd>,
    busy_poll: BusyPoll,
    moderation: Moderation,
    /// The moderation window of the pending interrupt has passed.
    was_delayed: bool,
    counters: Arc<WorkerCounters>,
    /// The time when a closing channel ends despite requests in flight; in a shared loop only.
    drain_end: Option<Instant>,
    guard: WorkerGuard<H::State>,
    channel: Channel,
}

/// The result of one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// There was no work.
    Idle,
    /// All work is done.
    Done,
    /// There is more work than one round takes.
    More,
}

/// The result of one turn in a shared loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// All work is done.
    Idle,
    /// There is more work.
    More,
    /// The channel is closed, and its requests have ended or timed out.
    Ended,
}

/// The error of a channel that the guest broke. The worker ends, and the guest may open the channel
/// again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault<E> {
    #[error(transparent)]
    Read(#[from] RingError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{0}")]
    Packet(E),
}

impl<H: ChannelHandler> Worker<H> {
    /// Returns the worker of `channel`. `restored`: the saved state of a restored channel.
    ///
    /// # Errors
    /// The system is out of file descriptors.
    pub(crate) fn new(
        shared: Arc<Shared<H::State>>,
        channel: Channel,
        handler: H,
        restored: Option<Quiesced<H::State>>,
    ) -> io::Result<Self> {
        let kick = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        let counters = Arc::clone(channel.worker_counters());
        shared.register(&kick);
        let mut guard = WorkerGuard::new(Arc::clone(shared.pause()), channel.subchannel());
        let mut outbox = Outbox::new();
        if let Some(restored) = restored {
            outbox.restore(&restored.packets);
            // The channel may be saved again before the worker runs.
            guard.quiesce(restored);
        }
        Ok(Self {
            handler,
            outbox,
            kick,
            // Enough for most handlers, so that the first sleep, which may come late, does not
            // allocate.
            events: Vec::with_capacity(4),
            polls: Vec::with_capacity(6),
            busy_poll: BusyPoll::new(shared.busy_poll_limit()),
            // `run` replaces it on the worker's thread.
            moderation: Moderation::new(false),
            was_delayed: false,
            counters,
            drain_end: None,
            guard,
            shared,
            channel,
        })
    }

    /// Returns the channel's number in this connection.
    pub(crate) fn relid(&self) -> u32 {
        self.channel.relid()
    }

    /// Returns the subchannel number.
    pub(crate) fn subchannel(&self) -> u16 {
        self.channel.subchannel()
    }

    /// Returns the state that all workers of the device share.
    pub(crate) fn shared(&self) -> &Arc<Shared<H::State>> {
        &self.shared
    }

    /// Returns true if the worker does no work until its device resumes.
    pub(crate) fn is_quiesced(&self) -> bool {
        self.guard.is_quiesced()
    }

    /// Serves the channel until it closes.
    ///
    /// # Errors
    /// The guest broke it.
    pub(crate) fn run(&mut self) -> Result<(), Fault<H::Error>> {
        // Not in `new`: the first call measures this machine, and a vCPU may be opening the
        // channel.
        self.moderation = Moderation::new(self.shared.moderates());
        while self.serve()? {
            let asleep = Instant::now();
            self.sleep();
            self.moderation.slept(asleep.elapsed());
            self.busy_poll.woke();
        }
        self.drain();
        Ok(())
    }

    /// Completes the work in flight of a closing channel, within [`MAX_DRAIN`]. Errors are ignored,
    /// as the channel ends anyway.
    pub(crate) fn drain(&mut self) {
        // A quiesced worker has nothing in flight, and must not touch the ring.
        if self.is_quiesced() {
            return;
        }
        let end = Instant::now() + MAX_DRAIN;
        self.handler.complete(&mut self.outbox);
        while self.handler.in_flight() != 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.wait_for_handler(left);
            self.handler.complete(&mut self.outbox);
        }
        self.deliver_last();
    }

    /// Delivers replies to a closing channel while its ring has space.
    fn deliver_last(&mut self) {
        let _ = self.outbox.deliver(&mut self.channel, false);
        self.outbox.notify_guest(&mut self.channel);
    }

    /// Works for a bounded number of rounds without blocking, for a thread that serves other
    /// channels too.
    ///
    /// # Errors
    /// The guest broke the channel.
    pub(crate) fn turn(&mut self) -> Result<Turn, Fault<H::Error>> {
        if self.channel.is_closing() {
            return Ok(self.drain_turn());
        }
        if !self.guard.resume() {
            return Ok(Turn::Idle);
        }
        let turn = self.some_rounds()?;
        self.quiesce_if_paused();
        Ok(turn)
    }

    fn some_rounds(&mut self) -> Result<Turn, Fault<H::Error>> {
        self.channel.incoming.mask();
        for _ in 0..TURN_ROUNDS {
            if self.round()? != Round::More {
                let has_more = self.may_take() && self.channel.incoming.unmask()?;
                return Ok(if has_more { Turn::More } else { Turn::Idle });
            }
        }
        Ok(Turn::More)
    }

    /// Drains the channel as [`Worker::drain`] does, without blocking.
    fn drain_turn(&mut self) -> Turn {
        if self.is_quiesced() {
            return Turn::Ended;
        }
        let end = *self.drain_end.get_or_insert_with(|| Instant::now() + MAX_DRAIN);
        self.handler.complete(&mut self.outbox);
        if self.handler.in_flight() != 0 && Instant::now() < end {
            return Turn::Idle;
        }
        self.deliver_last();
        Turn::Ended
    }

    /// Returns the maximum time to sleep if no descriptor of [`Worker::add_polls`] becomes
    /// readable.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let drain = self.drain_end.map(|end| end.saturating_duration_since(Instant::now()));
        drain.or_else(|| self.outbox.timeout())
    }

    /// Works until no work is left, with busy-polling. Returns false if the channel closes.
    ///
    /// # Errors
    /// The guest broke it.
    pub(crate) fn serve(&mut self) -> Result<bool, Fault<H::Error>> {
        if !self.guard.resume() {
            return Ok(!self.channel.is_closing());
        }
        let is_open = self.work()?;
        if is_open {
            self.quiesce_if_paused();
        }
        Ok(is_open)
    }

    #[inline]
    fn quiesce_if_paused(&mut self) {
        if self.shared.is_paused() {
            self.quiesce();
        }
    }

    #[cold]
    fn quiesce(&mut self) {
        if let Some(state) = self.handler.quiesce() {
            self.guard.quiesce(Quiesced::new(self.outbox.saved(), state));
        }
    }

    /// Sleeps until the handler has work, for at most `left`.
    pub(crate) fn wait_for_handler(&mut self, left: Duration) {
        let mut polls = std::mem::take(&mut self.polls);
        polls.clear();
        self.add_handler_polls(&mut polls);
        // At least a millisecond: a handler without an event has finished by then, or never will.
        wait::poll(&mut polls, Some(left.max(Duration::from_millis(1))));
        self.polls = polls;
    }

    /// Logs the end of the worker. `Err`: the worker panicked with this message.
    pub(crate) fn report_end(&self, end: thread::Result<Result<(), Fault<H::Error>>>) {
        let (device, relid, subchannel) = (self.shared.name(), self.relid(), self.subchannel());
        match end {
            Ok(Ok(())) => debug!(device, relid, subchannel, "channel closed"),
            Ok(Err(fault)) => self.report(&fault),
            Err(panic) => {
                let cause = describe(&*panic);
                self.shared.log().log(|left_out| {
                    error!(
                        device,
                        relid, subchannel, cause, left_out, "worker failed: channel lost"
                    );
                });
            }
        }
    }

    /// Logs the fault that ended the channel.
    pub(crate) fn report(&self, fault: &Fault<H::Error>) {
        let (device, relid, subchannel) = (self.shared.name(), self.relid(), self.subchannel());
        self.shared.log().log(|left_out| {
            warn!(
                device,
                relid,
                subchannel,
                %fault,
                left_out,
                "the guest broke its channel: channel given up"
            );
        });
    }

    /// Works until no work is left. Returns false if the channel closes.
    fn work(&mut self) -> Result<bool, Fault<H::Error>> {
        while !self.channel.is_closing() {
            self.channel.incoming.mask();
            while self.round()? == Round::More || self.delay_interrupt() || self.busy_poll()? {
                if self.channel.is_closing() {
                    return Ok(false);
                }
            }
            // If packets cannot be taken, the ring stays masked: the worker takes them after the
            // handler or the outgoing ring has progressed, and a doorbell would only wake it in
            // vain.
            if !self.may_take() || !self.channel.incoming.unmask()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns true if a packet may be taken now.
    #[inline]
    fn may_take(&self) -> bool {
        self.outbox.has_space() && self.handler.may_take() && !self.shared.is_paused()
    }

    /// Polls for work before the worker sleeps, if that has paid recently. The ring stays masked,
    /// so the guest need not signal the doorbell. Returns true if there was work.
    fn busy_poll(&mut self) -> Result<bool, Fault<H::Error>> {
        let Some(mut window) = self.busy_poll.begin() else { return Ok(false) };
        while !self.channel.is_closing() && self.busy_poll.continues(&mut window) {
            if self.round()? != Round::Idle {
                self.busy_poll.found();
                self.counters.polled.add(1);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Delays a pending interrupt by the moderation window, if that has paid recently. The ring
    /// stays masked, so the guest need not signal the doorbell for requests in the window. A close
    /// or a kick ends the window early. Returns true after a window.
    fn delay_interrupt(&mut self) -> bool {
        match self.moderation.window() {
            _ if self.outbox.pending() == 0 => {}
            Some(window) if !self.was_delayed => {
                self.was_delayed = true;
                self.counters.moderated.add(1);
                self.shared.count_moderated();
                self.wait_for_window(window);
                return true;
            }
            _ => self.outbox.notify_guest(&mut self.channel),
        }
        self.was_delayed = false;
        false
    }

    /// Sleeps for `window`, or until the channel closes, the worker is kicked, or the handler has
    /// urgent work.
    fn wait_for_window(&mut self, window: Duration) {
        let end = Instant::now() + window;
        let mut polls = std::mem::take(&mut self.polls);
        polls.clear();
        polls.push(wait::entry(self.channel.doorbell().as_raw_fd()));
        polls.push(wait::entry(self.kick.as_raw_fd()));
        self.events.clear();
        self.handler.urgent_events(&mut self.events);
        polls.extend(self.events.iter().copied().map(wait::entry));
        loop {
            wait::poll(&mut polls, Some(end.saturating_duration_since(Instant::now())));
            // A doorbell from before the mask would end every later window too, so it is cleared.
            // The ring is read next anyway.
            let is_rung = self.clear(&polls);
            let is_urgent = polls[1..].iter().any(|entry| entry.revents != 0);
            if !is_rung || is_urgent || self.channel.is_closing() || Instant::now() >= end {
                break;
            }
        }
        self.polls = polls;
    }

    /// Runs one round: takes a batch, completes work, delivers replies.
    #[inline]
    fn round(&mut self) -> Result<Round, Fault<H::Error>> {
        self.handler.begin_round(&mut self.outbox);
        let could_take = self.may_take();
        let taken = if could_take { self.take_batch()? } else { Round::Idle };
        self.handler.end_batch();
        let completed = self.handler.complete(&mut self.outbox);
        if !self.outbox.is_empty() || self.channel.outgoing.is_waiting() {
            let delay = self.moderation.window().is_some();
            let delivered = self.outbox.deliver(&mut self.channel, delay)?;
            self.moderation.delivered(delivered.replies, self.handler.backlog());
            self.counters.sent.add(delivered.packets);
        }
        self.handler.delivered(&self.channel);
        Ok(match taken {
            _ if completed == Completed::CallAgain => Round::More,
            // Finished work has made space for more packets.
            Round::Idle if !could_take && self.may_take() => Round::More,
            Round::Idle if completed != Completed::Nothing => Round::Done,
            taken => taken,
        })
    }

    #[inline]
    fn take_batch(&mut self) -> Result<Round, Fault<H::Error>> {
        let trace = self.channel.trace();
        let mut batch = self.channel.incoming.batch()?;
        let mut taken = 0;
        while taken < BATCH_PACKETS
            && !self.handler.is_batch_full()
            && self.outbox.has_space()
            && self.handler.may_take()
        {
            let Some(packet) = batch.next()? else { break };
            if let Some(trace) = &trace {
                trace.received(&packet);
            }
            self.handler.packet(&packet, &mut self.outbox).map_err(Fault::Packet)?;
            taken += 1;
        }
        if taken == 0 {
            return Ok(Round::Idle);
        }
        let is_cut_short = batch.remaining() != 0;
        let wants_signal = batch.commit();
        if wants_signal {
            self.channel.signal();
        }
        self.counters.taken.add(taken);
        self.counters.batches.add(1);
        Ok(if is_cut_short { Round::More } else { Round::Done })
    }

    /// Sleeps until the guest, the device or the handler has work.
    fn sleep(&mut self) {
        let mut polls = std::mem::take(&mut self.polls);
        polls.clear();
        self.add_polls(&mut polls);
        self.counters.sleeps.add(1);
        wait::poll(&mut polls, self.outbox.timeout());
        self.clear(&polls);
        self.polls = polls;
    }

    /// Adds the descriptors that wake the worker: the doorbell and the kick first, then the
    /// handler's. A quiesced worker takes no work, so the handler's events would wake it in vain,
    /// again and again.
    pub(crate) fn add_polls(&mut self, polls: &mut Vec<libc::pollfd>) {
        polls.push(wait::entry(self.channel.doorbell().as_raw_fd()));
        polls.push(wait::entry(self.kick.as_raw_fd()));
        if !self.is_quiesced() {
            self.add_handler_polls(polls);
        }
    }

    /// Adds the handler's descriptors.
    fn add_handler_polls(&mut self, polls: &mut Vec<libc::pollfd>) {
        self.events.clear();
        self.handler.events(&mut self.events);
        polls.extend(self.events.iter().copied().map(wait::entry));
    }

    /// Clears the doorbell and the kick. `polls` begins with their entries. Returns true if one was
    /// set. To be called before the worker checks for work, so that a later event wakes it again.
    /// Only set events are read, as each read is a system call.
    pub(crate) fn clear(&self, polls: &[libc::pollfd]) -> bool {
        let mut is_set = false;
        for (entry, event) in polls.iter().zip([self.channel.doorbell(), &*self.kick]) {
            if entry.revents != 0 {
                is_set = true;
                let _ = event.read();
            }
        }
        is_set
    }
}

fn describe(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
