//! The data path of one channel: what primary channel and subchannels have in common.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::sync::Arc;

use vmbus_device::Completed;
use vmbus_gpadl::GuestRam;
use vmbus_ring::{Packet, PacketKind};

use crate::config::Config;
use crate::counters::SharedCounters;
use crate::error::ChannelError;
use crate::group::ChannelGroup;
use crate::inbox::{Arrival, Inbox, Sleep};
use crate::protocol::nvsp::RndisPacket;
use crate::protocol::sub_allocations::Owner;
use crate::queue::ChannelQueue;
use crate::receiver::{Receiver, Surroundings};
use crate::saved::{RestoreError, SavedState};
use crate::state::Card;
use crate::transmitter::{Outbox, Request, Transmitter};

/// Bytes of a packet's payload that are looked at: more than any NVSP message has.
pub(crate) const MAX_PAYLOAD: usize = 64;

/// Frames of one channel in both directions.
pub(crate) struct DataPath {
    card: Arc<Card>,
    group: Arc<ChannelGroup>,
    index: u16,
    opening: u32,
    /// The configuration of this round, and its number.
    config: Arc<Config>,
    generation: u32,
    pub(crate) transmitter: Transmitter,
    receiver: Option<Receiver>,
    /// Frames stay with the backend: the receive buffer is about to be divided again.
    is_draining: bool,
    /// Closings of channels that the receiver has taken into account.
    closings: u32,
    /// The inbox was asked to wake this channel.
    is_asleep: Cell<bool>,
    /// Messages with frames that the guest has sent since a frame was received.
    unanswered: usize,
    /// Completions of packets of other channels, by their owner.
    foreign: Vec<(u16, u64)>,
    // Kept for their memory.
    arrivals: Vec<Arrival>,
    returns: Vec<u64>,
    counters: Arc<SharedCounters>,
}

/// A packet of the guest, by its kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Taken {
    /// A completion, which the data path has taken.
    Completion(CompletionOf),
    /// A request, whose message is the handler's.
    Request(Request),
}

/// The receiver of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompletionOf {
    /// A packet of frames, or none that exists.
    Frames,
    /// A packet with a control message, of which only the primary channel knows.
    Control,
}

impl DataPath {
    /// Returns the data path of channel `index`.
    pub(crate) fn new(
        card: Arc<Card>,
        group: Arc<ChannelGroup>,
        index: u16,
        opening: u32,
        queue: ChannelQueue,
        ram: GuestRam,
    ) -> Self {
        let generation = group.generation();
        let mut path = Self {
            index,
            opening,
            config: Arc::default(),
            generation,
            transmitter: Transmitter::new(queue, ram),
            receiver: None,
            is_draining: false,
            closings: group.closings(),
            is_asleep: Cell::new(false),
            unanswered: 0,
            foreign: Vec::new(),
            arrivals: Vec::new(),
            returns: Vec::new(),
            counters: card.counters_of(index),
            card,
            group,
        };
        path.take_config();
        path
    }

    /// Returns the card.
    pub(crate) fn card(&self) -> &Arc<Card> {
        &self.card
    }

    /// Returns the group of the channel.
    pub(crate) fn group(&self) -> &Arc<ChannelGroup> {
        &self.group
    }

    /// Returns the configuration that the channel uses.
    #[inline]
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the channel's state for a save.
    pub(crate) fn save(&self) -> SavedState {
        SavedState {
            frames: self.receiver.as_ref().map(Receiver::save),
            lost: self.transmitter.save(&self.config),
            primary: None,
        }
    }

    /// Restores the channel's state.
    ///
    /// # Errors
    /// It does not fit the configuration.
    pub(crate) fn restore(&mut self, saved: &SavedState) -> Result<(), RestoreError> {
        let Some(frames) = &saved.frames else { return Ok(()) };
        let receiver = self.receiver.take();
        let receiver = receiver.ok_or(RestoreError::Damaged("a channel has no receive buffer"))?;
        self.receiver = Some(receiver.restored(frames)?);
        Ok(())
    }

    /// Takes the newest configuration.
    #[inline]
    pub(crate) fn refresh(&mut self) {
        if self.generation != self.group.generation() {
            self.take_config();
        }
    }

    /// Begins a round: takes the newest configuration, and notes closed channels.
    #[inline]
    pub(crate) fn begin_round(&mut self) {
        if self.is_asleep.take()
            && let Some(inbox) = self.inbox()
        {
            inbox.end_sleep();
        }
        self.refresh();
        if self.closings != self.group.closings() {
            self.closings = self.group.closings();
            if let Some(receiver) = &mut self.receiver {
                receiver.reclaim(&self.group);
            }
        }
    }

    /// Sends the frames of an RNDIS message, whose ranges were noted last.
    #[inline]
    pub(crate) fn send(&mut self, request: Request, packet: RndisPacket, outbox: &mut Outbox) {
        self.unanswered = self.unanswered.saturating_add(1);
        let around = (&*self.config, &self.counters.statistics);
        self.transmitter.send(request, packet, around, outbox);
    }

    /// Returns the number of messages with frames that the guest has sent after the last frame that
    /// may have been an answer, less one: a guest that waits for each answer has none.
    #[inline]
    pub(crate) fn backlog(&self) -> usize {
        self.unanswered.saturating_sub(1)
    }

    /// Takes a packet of the guest as far as its kind says: a completion, or the ranges of a
    /// request.
    ///
    /// # Errors
    /// No guest sends packets of this kind.
    #[inline]
    pub(crate) fn take_packet(&mut self, packet: &Packet<'_>) -> Result<Taken, ChannelError> {
        match packet.kind() {
            PacketKind::Completion => {
                Ok(Taken::Completion(self.complete_packet(packet.transaction_id())))
            }
            PacketKind::TransferPages => Err(ChannelError::Kind(packet.kind())),
            PacketKind::InBand | PacketKind::GpaDirect => {
                self.transmitter.take_ranges(packet);
                Ok(Taken::Request(Request::of(packet)))
            }
        }
    }

    fn complete_packet(&mut self, transaction: u64) -> CompletionOf {
        let Some(buffer) = &self.config.receive_buffer else { return CompletionOf::Frames };
        match buffer.partition.owner_of(transaction) {
            Some(Owner::Channel(index)) if index == self.index => {
                if let Some(receiver) = &mut self.receiver {
                    receiver.complete(transaction);
                }
            }
            Some(Owner::Channel(index)) => self.foreign.push((index, transaction)),
            Some(Owner::Control) if self.index == 0 => return CompletionOf::Control,
            Some(Owner::Control) => self.foreign.push((0, transaction)),
            None => {}
        }
        CompletionOf::Frames
    }

    /// Ends a batch: passes completions on to the channels that own the sub-allocations.
    #[inline]
    pub(crate) fn end_batch(&mut self) {
        while let Some(&(owner, _)) = self.foreign.last() {
            let mut returns = std::mem::take(&mut self.returns);
            self.foreign.retain(|&(of, transaction)| {
                if of == owner {
                    returns.push(transaction);
                }
                of != owner
            });
            let buffer = self.config.receive_buffer.as_ref();
            let limit = buffer.map_or(0, |buffer| buffer.geometry.count() as usize);
            match self.group.inbox(owner) {
                Some(inbox) => inbox.give_back(&mut returns, limit),
                None => returns.clear(),
            }
            self.returns = returns;
        }
    }

    /// Moves frames in both directions. `control` gets completions of control messages that came on
    /// other channels.
    #[inline]
    pub(crate) fn progress(
        &mut self,
        outbox: &mut Outbox,
        mut control: impl FnMut(u64),
    ) -> Completed {
        let mut any = self.take_inbox(outbox, &mut control);
        let around = (&*self.config, &self.counters.statistics);
        any |= self.transmitter.resume(around, outbox);
        let received = self.receive(outbox);
        if received != Completed::Nothing {
            self.unanswered = 0;
        }
        any |= self.break_deadlock(outbox);
        self.count();
        match received {
            Completed::Nothing if any => Completed::Some,
            received => received,
        }
    }

    /// Drops a message that waits for the backend while nothing is received. Completions of
    /// received frames may be behind it in the ring, and the far end may take frames only after its
    /// own were received: then neither would go on. Returns true if a message was dropped.
    #[inline]
    fn break_deadlock(&mut self, outbox: &mut Outbox) -> bool {
        if self.index == 0 && self.group.has_one_reader() {
            self.group.set_reception(self.can_receive());
        }
        if self.transmitter.is_free() || self.is_received() {
            return false;
        }
        self.transmitter.give_up((&*self.config, &self.counters.statistics), outbox);
        true
    }

    /// Returns true if the frames of the channel's queue are received, by this channel or by the
    /// primary channel for all.
    fn is_received(&self) -> bool {
        match self.index {
            1.. if self.group.has_one_reader() => self.group.is_receiving(),
            _ => self.can_receive(),
        }
    }

    /// Makes the counters of this round visible.
    fn count(&mut self) {
        let round = self.receiver.as_mut().map(Receiver::take_counters);
        self.counters.update(round.unwrap_or_default());
    }

    /// Stops or continues the reception of frames.
    pub(crate) fn set_draining(&mut self, is_draining: bool) {
        self.is_draining = is_draining;
    }

    /// Returns true if the guest has completed all packets of the channel's receiver.
    pub(crate) fn is_idle(&self) -> bool {
        self.receiver.as_ref().is_none_or(Receiver::is_idle)
    }

    /// Adds the events that [`DataPath::progress`] waits for.
    ///
    /// The backend's event of frames counts only while the guest can receive, as it stays readable
    /// as long as a frame is there; so does that of space while nothing waits for it.
    pub(crate) fn events(&self, events: &mut Vec<RawFd>) {
        if self.can_receive() {
            events.extend(self.transmitter.queue.event());
        }
        events.extend(self.transmitter.space_event());
        if self.config.channels > 1
            && let Some(inbox) = self.inbox()
        {
            let is_starved = {
                let receiver = self.receiver.as_ref();
                receiver.is_some_and(|one| !one.has_space(&self.config))
            };
            let sleep = if !self.transmitter.is_free() {
                Sleep::Reception
            } else if is_starved || self.is_draining {
                Sleep::Completions
            } else {
                Sleep::Packets
            };
            self.is_asleep.set(true);
            events.push(inbox.prepare_sleep(sleep));
            // It may have ended before the channel was asleep.
            if sleep == Sleep::Reception && !self.is_received() {
                inbox.reception_ended();
            }
        }
    }

    fn can_receive(&self) -> bool {
        !self.is_draining
            && self.config.receive_settings().is_some()
            && self.receiver.as_ref().is_some_and(|one| one.has_space(&self.config))
    }

    fn receive(&mut self, outbox: &mut Outbox) -> Completed {
        let Some(receiver) = self.receiver.as_mut().filter(|_| !self.is_draining) else {
            return Completed::Nothing;
        };
        let config = &*self.config;
        match (config.version, config.receive_settings()) {
            (Some(version), Some(settings)) => {
                let (group, statistics) = (&*self.group, &self.counters.statistics);
                let around = Surroundings { config, group, version, settings, statistics };
                receiver.receive(&mut self.transmitter.queue, around, outbox)
            }
            _ => Completed::Nothing,
        }
    }

    fn take_inbox(&mut self, outbox: &mut Outbox, control: &mut impl FnMut(u64)) -> bool {
        if self.config.channels <= 1 || !self.inbox().is_some_and(Inbox::has_work) {
            return false;
        }
        let group = Arc::clone(&self.group);
        let Some(inbox) = group.inbox(self.index) else { return false };
        let any = inbox.take_arrivals(&mut self.arrivals);
        if any {
            self.unanswered = 0;
        }
        for (transaction, packet) in self.arrivals.drain(..) {
            outbox.request(transaction, packet);
        }
        let mut returns = std::mem::take(&mut self.returns);
        let has_returns = inbox.take_returns(&mut returns);
        for transaction in returns.drain(..) {
            if self.complete_packet(transaction) == CompletionOf::Control {
                control(transaction);
            }
        }
        self.returns = returns;
        any || has_returns
    }

    fn inbox(&self) -> Option<&Inbox> {
        self.group.inbox(self.index)
    }

    #[cold]
    fn take_config(&mut self) {
        self.generation = self.group.generation();
        let old = std::mem::replace(&mut self.config, self.group.config());
        if self.index != 0 && old.receive_buffer.is_some() && self.config.receive_buffer.is_none() {
            // The primary channel waits until no channel uses the buffer.
            self.receiver = None;
            drop(old);
            self.card.workers.kick();
        }
        let is_reader = self.index < self.config.readers;
        let Some(buffer) = self.config.receive_buffer.as_ref().filter(|_| is_reader) else {
            self.receiver = None;
            return;
        };
        match &mut self.receiver {
            Some(receiver) if Arc::ptr_eq(receiver.buffer(), buffer) => {
                receiver.set_channels(self.config.channels);
            }
            receiver => {
                let buffer = Arc::clone(buffer);
                *receiver = Some(Receiver::new(self.index, buffer, self.config.channels));
            }
        }
    }
}

impl Drop for DataPath {
    fn drop(&mut self) {
        self.receiver = None;
        self.count();
        self.group.close(self.index, self.opening);
        // The other channels let go of buffers, or free the sub-allocations of this channel.
        self.card.workers.kick();
    }
}
