//! The worker's loop: when to look, when to sleep, when to end.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use synthvm_block::wait;
use tracing::warn;
use vmbus_host::Channel;
use vmbus_log::LogRateLimiter;
use vmbus_ring::{RingError, WriteError};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::engine::{BadPacket, Engine};
use super::limits::{BATCH_BYTES, BATCH_PACKETS, MAX_DRAIN};
use super::pacer::Pacer;
use super::poller::Poller;
use super::slots::Slots;
use crate::controller::{Controller, Parked, Presence};
use crate::protocol::{MAX_LUNS, Session};

/// A channel and all that serves it.
pub(super) struct Worker {
    // The order matters: queues stop touching guest memory before the channel is given back.
    engine: Engine,
    kick: Arc<EventFd>,
    polls: Vec<libc::pollfd>,
    poller: Poller,
    pacer: Pacer,
    /// A moment has passed since the guest should have been told of completions.
    held_back: bool,
    presence: Presence,
    channel: Channel,
}

/// What came of one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// There was nothing to do.
    Idle,
    /// All that there was is done.
    Done,
    /// More waits than one round takes.
    More,
}

/// The guest broke the channel: it is given up, and the guest may open it again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Read(#[from] RingError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Packet(#[from] BadPacket),
}

impl Worker {
    pub(super) fn new(
        controller: Arc<Controller>,
        session: Session,
        channel: Channel,
        restored: Option<Parked>,
    ) -> io::Result<Self> {
        let kick = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        controller.register(&kick);
        let poller = Poller::new(controller.poll_limit());
        // It begins with the worker's thread.
        let pacer = Pacer::new(false);
        let slots = Slots::new(channel.ram().clone());
        let mut presence = Presence::new(Arc::clone(&controller), channel.subchannel());
        let mut engine = Engine::new(controller, session, slots);
        if let Some(restored) = restored {
            engine.restore(&restored);
            // It may be written down again before it has done anything.
            engine.parked().into_iter().for_each(|parked| presence.park(parked));
        }
        let polls = Vec::with_capacity(3 + MAX_LUNS);
        Ok(Self { engine, kick, polls, poller, pacer, held_back: false, presence, channel })
    }

    pub(super) fn relid(&self) -> u32 {
        self.channel.relid()
    }

    pub(super) fn subchannel(&self) -> u16 {
        self.channel.subchannel()
    }

    /// Serves the channel until it closes.
    ///
    /// # Errors
    /// The guest broke it.
    pub(super) fn run(&mut self) -> Result<(), Fault> {
        // Not earlier: the first one measures this machine, and whoever opens a channel may be a vCPU.
        self.pacer = Pacer::new(self.engine.controller().holds_back());
        while self.serve()? {
            let asleep = Instant::now();
            self.sleep();
            self.pacer.slept(asleep.elapsed());
            self.poller.woke();
        }
        self.drain();
        Ok(())
    }

    /// Completes what is in flight, for as long as that may take at most. The channel closes: what goes wrong now concerns nobody.
    pub(super) fn drain(&mut self) {
        // Nothing is in flight then, and the ring is out of bounds.
        if self.presence.is_parked() {
            return;
        }
        let end = Instant::now() + MAX_DRAIN;
        self.engine.finish();
        while self.engine.slots.count() != 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.wait_for_queues(left);
            self.engine.finish();
        }
        let _ = self.engine.outbox.deliver(&mut self.channel, false);
        self.engine.outbox.tell(&mut self.channel);
    }

    /// Does all that there is to do now, and what comes soon after. False when the channel closes.
    ///
    /// # Errors
    /// The guest broke it.
    pub(super) fn serve(&mut self) -> Result<bool, Fault> {
        if !self.presence.leave() {
            return Ok(!self.channel.is_closing());
        }
        let goes_on = self.work()?;
        if goes_on && self.engine.controller().is_paused() {
            self.engine.parked().into_iter().for_each(|parked| self.presence.park(parked));
        }
        Ok(goes_on)
    }

    /// Serves until nothing is left to do now.
    fn work(&mut self) -> Result<bool, Fault> {
        while !self.channel.is_closing() {
            self.channel.incoming.mask();
            while self.turn()? == Turn::More || self.hold_back() || self.look_on()? {
                if self.channel.is_closing() {
                    return Ok(false);
                }
            }
            // What cannot be taken now is taken when a queue or the ring has moved on; its doorbell would only wake us in vain.
            if !self.engine.may_take() || !self.channel.incoming.unmask()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks for more before going to sleep, for as long as that has paid lately. The ring stays masked, so that the guest need not ring.
    /// True when there was more.
    fn look_on(&mut self) -> Result<bool, Fault> {
        let Some(mut spell) = self.poller.begin() else { return Ok(false) };
        while !self.channel.is_closing() && self.poller.goes_on(&mut spell) {
            if self.turn()? != Turn::Idle {
                self.poller.found();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Before the guest is told of completions, waits a moment for more of them, if that has paid lately. The ring stays masked, so that the
    /// guest need not ring for the requests that it sends meanwhile. True when a moment has passed.
    fn hold_back(&mut self) -> bool {
        match self.pacer.hold() {
            _ if self.engine.outbox.untold() == 0 => {}
            Some(time) if !self.held_back => {
                self.held_back = true;
                self.engine.controller().hold_back();
                thread::sleep(time);
                return true;
            }
            _ => self.engine.outbox.tell(&mut self.channel),
        }
        self.held_back = false;
        false
    }

    /// It belongs to `controller`.
    pub(super) fn is_of(&self, controller: &Arc<Controller>) -> bool {
        Arc::ptr_eq(self.engine.controller(), controller)
    }

    /// It does nothing until its controller goes on.
    pub(super) fn is_parked(&self) -> bool {
        self.presence.is_parked()
    }

    /// Sleeps until a queue has something, or `left` is over.
    pub(super) fn wait_for_queues(&mut self, left: Duration) {
        self.polls.clear();
        let query = self.engine.query_event().map(AsRawFd::as_raw_fd);
        self.polls.extend(query.into_iter().chain(self.engine.ports.events()).map(wait::entry));
        // At least a millisecond: a queue without an event has finished by then or never will.
        wait::poll(&mut self.polls, u16::try_from(left.as_millis()).ok().map(|left| left.max(1)));
        self.clear(self.engine.query_event().into_iter());
    }

    /// Where to complain about the guest.
    pub(super) fn faults(&self) -> &LogRateLimiter {
        self.engine.faults()
    }

    /// Says in the log why the channel is given up.
    pub(super) fn report(&self, fault: &Fault) {
        let (relid, subchannel) = (self.relid(), self.subchannel());
        self.engine.faults().log(|left_out| {
            warn!(relid, subchannel, %fault, left_out, "the guest broke its storage channel: channel given up");
        });
    }

    /// One round: a batch in, I/O, completions out.
    fn turn(&mut self) -> Result<Turn, Fault> {
        self.engine.refresh();
        let could_take = self.engine.may_take();
        let taken = if could_take { self.take_batch()? } else { Turn::Idle };
        self.engine.submit();
        let finished = self.engine.finish();
        if !self.engine.outbox.is_empty() || self.channel.outgoing.is_waiting() {
            let hold = self.pacer.hold().is_some();
            let written = self.engine.outbox.deliver(&mut self.channel, hold)?;
            self.pacer.delivered(written, self.engine.slots.count());
        }
        if let Some(total) = self.engine.take_subchannels() {
            self.channel.offer_subchannels(total);
        }
        Ok(match taken {
            _ if finished && self.engine.has_parts() => Turn::More,
            // What was finished made room.
            Turn::Idle if !could_take && self.engine.may_take() => Turn::More,
            Turn::Idle if finished => Turn::Done,
            taken => taken,
        })
    }

    fn take_batch(&mut self) -> Result<Turn, Fault> {
        let mut batch = self.channel.incoming.batch()?;
        let mut taken = 0;
        while taken < BATCH_PACKETS && self.engine.taken_bytes() < BATCH_BYTES && self.engine.may_take() {
            let Some(packet) = batch.next()? else { break };
            self.engine.take(&packet)?;
            taken += 1;
        }
        if taken == 0 {
            return Ok(Turn::Idle);
        }
        let cut_short = batch.remaining() != 0;
        let wanted = batch.commit();
        if wanted {
            self.channel.signal();
        }
        Ok(if cut_short { Turn::More } else { Turn::Done })
    }

    /// Sleeps until the guest, the controller or a queue has something.
    fn sleep(&mut self) {
        self.polls.clear();
        self.polls.push(wait::entry(self.channel.doorbell().as_raw_fd()));
        self.polls.push(wait::entry(self.kick.as_raw_fd()));
        let query = self.engine.query_event().map(AsRawFd::as_raw_fd);
        self.polls.extend(query.into_iter().chain(self.engine.ports.events()).map(wait::entry));
        wait::poll(&mut self.polls, self.engine.outbox.timeout());
        let own = [self.channel.doorbell(), &*self.kick];
        self.clear(own.into_iter().chain(self.engine.query_event()));
    }

    /// Reads those of `events`, the first that were slept on, that woke the worker. Before anything is
    /// looked at, so that what comes later wakes again; and no other, as each read is a system call.
    fn clear<'a>(&self, events: impl Iterator<Item = &'a EventFd>) {
        for (entry, event) in self.polls.iter().zip(events) {
            if entry.revents != 0 {
                let _ = event.read();
            }
        }
    }
}
