//! The loop of one channel: when to look, when to sleep, when to end.

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
use crate::wait;
use crate::workers::Shared;

/// A channel and all that serves it.
pub(crate) struct Worker<H: ChannelHandler> {
    // The order matters: the handler stops touching guest memory before the channel is given back.
    handler: H,
    outbox: Outbox<H::Payload>,
    shared: Arc<Shared<H::State>>,
    kick: Arc<EventFd>,
    /// Kept for their memory.
    events: Vec<RawFd>,
    polls: Vec<libc::pollfd>,
    busy_poll: BusyPoll,
    moderation: Moderation,
    /// The moderation window for the pending interrupt is over.
    was_delayed: bool,
    counters: Arc<WorkerCounters>,
    /// When a closing channel is given back although work is in flight; in a shared loop only.
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
    /// The channel is closed, and nothing is in flight that it waits for.
    Ended,
}

/// The guest broke the channel: it is given up, and the guest may open it again.
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
    /// Returns the worker of `channel`. `restored`: the state with which it resumes.
    ///
    /// # Errors
    /// The system's: out of file descriptors.
    pub(crate) fn new(
        shared: Arc<Shared<H::State>>,
        channel: Channel,
        handler: H,
        restored: Option<Quiesced<H::State>>,
    ) -> io::Result<Self> {
        let kick = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        let counters = Arc::clone(channel.worker_counters());
        shared.register(&kick);
        let mut guard = WorkerGuard::new(shared.pause_state(), channel.subchannel());
        let mut outbox = Outbox::new();
        if let Some(restored) = restored {
            outbox.restore(&restored.packets);
            // The channel may be saved again before the worker has run.
            guard.quiesce(restored);
        }
        Ok(Self {
            handler,
            outbox,
            kick,
            // Enough for most handlers: the first sleep, which may come late, allocates nothing.
            events: Vec::with_capacity(4),
            polls: Vec::with_capacity(6),
            busy_poll: BusyPoll::new(shared.busy_poll_limit()),
            // Replaced when the worker's thread begins.
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

    /// Whether the worker does nothing until its device resumes.
    pub(crate) fn is_quiesced(&self) -> bool {
        self.guard.is_quiesced()
    }

    /// Serves the channel until it closes.
    ///
    /// # Errors
    /// The guest broke it.
    pub(crate) fn run(&mut self) -> Result<(), Fault<H::Error>> {
        // Not earlier: the first one measures this machine, and a vCPU may have opened the channel.
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

    /// Completes the work in flight, within a time limit. The channel closes, so errors are of no
    /// interest any more.
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

    /// Delivers the replies for which a closing channel has space.
    fn deliver_last(&mut self) {
        let _ = self.outbox.deliver(&mut self.channel, false);
        self.outbox.notify_guest(&mut self.channel);
    }

    /// Works for a bounded number of rounds, without waiting: for a thread that serves other
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

    /// The same as [`Worker::drain`], in turns.
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

    /// Returns how long to sleep at most, although no descriptor of [`Worker::add_polls`] is set.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let drain = self.drain_end.map(|end| end.saturating_duration_since(Instant::now()));
        drain.or_else(|| self.outbox.timeout())
    }

    /// Does all work that there is now, and that comes soon after. False when the channel closes.
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

    fn quiesce_if_paused(&mut self) {
        if self.shared.is_paused()
            && let Some(state) = self.handler.quiesce()
        {
            self.guard.quiesce(Quiesced::new(self.outbox.saved(), state));
        }
    }

    /// Sleeps until the handler has work, or `left` is over.
    pub(crate) fn wait_for_handler(&mut self, left: Duration) {
        let mut polls = std::mem::take(&mut self.polls);
        polls.clear();
        self.add_handler_polls(&mut polls);
        // At least a millisecond: a handler without an event has finished by then or never will.
        wait::poll(&mut polls, Some(left.max(Duration::from_millis(1))));
        self.polls = polls;
    }

    /// Logs the end of the worker: `Err`, the message of a panic.
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

    /// Logs why the channel is given up.
    pub(crate) fn report(&self, fault: &Fault<H::Error>) {
        let (device, relid, subchannel) = (self.shared.name(), self.relid(), self.subchannel());
        self.shared.log().log(|left_out| {
            warn!(device, relid, subchannel, %fault, left_out, "the guest broke its channel: channel given up");
        });
    }

    /// Works until nothing is left to do now.
    fn work(&mut self) -> Result<bool, Fault<H::Error>> {
        while !self.channel.is_closing() {
            self.channel.incoming.mask();
            while self.round()? == Round::More || self.delay_interrupt() || self.busy_poll()? {
                if self.channel.is_closing() {
                    return Ok(false);
                }
            }
            // Packets that cannot be taken now are taken when the handler or the ring has moved on;
            // the doorbell would only wake the worker in vain.
            if !self.may_take() || !self.channel.incoming.unmask()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a packet may be taken now.
    #[inline]
    fn may_take(&self) -> bool {
        self.outbox.has_space() && self.handler.may_take() && !self.shared.is_paused()
    }

    /// Looks for work before going to sleep, while that has paid lately. The ring stays masked, so
    /// the guest need not ring the doorbell. True when there was work.
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

    /// Delays a pending interrupt by the moderation window, if that has paid lately. The ring stays
    /// masked, so the guest need not ring for the requests that it sends meanwhile; a close or a
    /// kick ends the window. True when a window is over.
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

    /// Sleeps for `window`, or until the channel closes or the worker is kicked.
    fn wait_for_window(&mut self, window: Duration) {
        let end = Instant::now() + window;
        let doorbell = wait::entry(self.channel.doorbell().as_raw_fd());
        let mut entries = [doorbell, wait::entry(self.kick.as_raw_fd())];
        loop {
            wait::poll(&mut entries, Some(end.saturating_duration_since(Instant::now())));
            // Cleared, as a doorbell from before the ring was masked would end every later window
            // too. The ring is looked at next.
            let is_rung = self.clear(&entries);
            let is_kicked = entries[1].revents != 0;
            if !is_rung || is_kicked || self.channel.is_closing() || Instant::now() >= end {
                return;
            }
        }
    }

    /// One round: a batch in, work, replies out.
    #[inline]
    fn round(&mut self) -> Result<Round, Fault<H::Error>> {
        self.handler.begin_round(&mut self.outbox);
        let could_take = self.may_take();
        let taken = if could_take { self.take_batch()? } else { Round::Idle };
        self.handler.end_batch();
        let completed = self.handler.complete(&mut self.outbox);
        if !self.outbox.is_empty() || self.channel.outgoing.is_waiting() {
            let delay = self.moderation.window().is_some();
            let written = self.outbox.deliver(&mut self.channel, delay)?;
            self.moderation.delivered(written, self.handler.in_flight());
            self.counters.sent.add(written);
        }
        self.handler.delivered(&self.channel);
        Ok(match taken {
            _ if completed == Completed::CallAgain => Round::More,
            // Finished work made space for more packets.
            Round::Idle if !could_take && self.may_take() => Round::More,
            Round::Idle if completed != Completed::Nothing => Round::Done,
            taken => taken,
        })
    }

    #[inline]
    fn take_batch(&mut self) -> Result<Round, Fault<H::Error>> {
        let mut batch = self.channel.incoming.batch()?;
        let mut taken = 0;
        while taken < BATCH_PACKETS
            && !self.handler.is_batch_full()
            && self.outbox.has_space()
            && self.handler.may_take()
        {
            let Some(packet) = batch.next()? else { break };
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

    /// Adds the descriptors that say when the guest, the device or the handler has work, the
    /// doorbell and the kick first.
    pub(crate) fn add_polls(&mut self, polls: &mut Vec<libc::pollfd>) {
        polls.push(wait::entry(self.channel.doorbell().as_raw_fd()));
        polls.push(wait::entry(self.kick.as_raw_fd()));
        self.add_handler_polls(polls);
    }

    /// Adds the handler's descriptors.
    fn add_handler_polls(&mut self, polls: &mut Vec<libc::pollfd>) {
        self.events.clear();
        self.handler.events(&mut self.events);
        polls.extend(self.events.iter().copied().map(wait::entry));
    }

    /// Clears the doorbell and the kick, of which `polls` begins with the entries. True when one of
    /// them was set. Before anything is looked at, so a later event wakes again; and only if
    /// set, as each read is a system call.
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
