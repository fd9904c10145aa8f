//! Frames to the guest: from the backend into the receive buffer, and to the ring of a channel.

mod saved;
mod space;
mod target;

use std::ops::Range;
use std::sync::Arc;

use synthvm_net::{Queue, ReceiveError};
use vmbus_device::{Completed, Outbox};

use self::space::{Space, SpaceMemory};
use self::target::Target;
use crate::config::{Config, ReceiveBuffer};
use crate::counters::{ChannelCounters, SharedStatistics};
use crate::group::ChannelGroup;
use crate::inspect::{InspectedFrame, inspect};
use crate::packet::NetPacket;
use crate::protocol::limits::{FRAME_OFFSET, MAX_COALESCED_FRAME};
use crate::protocol::nvsp::NvspVersion;
use crate::protocol::oid::Settings;
use crate::protocol::sub_allocations::{Owner, Share, TransactionId};
use crate::queue::ChannelQueue;

/// Most frames of one round: packets of the guest have their turn in between.
const MAX_FRAMES: usize = 64;

/// Most frames in one packet. Guests accept 375, and smaller packets reach them earlier.
pub(crate) const MAX_PACKET_FRAMES: usize = 64;

/// Most frames that are received under one lock of a queue that channels share: they wait for it to
/// send.
const LOCKED_FRAMES: usize = 8;

/// A channel's part of the receive buffer, and the frames that it receives.
pub(crate) struct Receiver {
    /// The channel.
    index: u16,
    buffer: Arc<ReceiveBuffer>,
    share: Share,
    /// Index of the first sub-allocation of the share.
    first: u32,
    /// The channels to which frames go.
    targets: Vec<Target>,
    /// The channels with frames in this round.
    touched: Vec<u16>,
    /// The destination of each packet, by the first of its sub-allocations.
    destinations: Box<[Destination]>,
    /// Number of the last coalesced frame.
    coalesced: u16,
    /// Dropped frames since [`Receiver::take_counters`].
    unwanted: u64,
    starved: u64,
    /// Kept for its memory.
    space: SpaceMemory,
}

/// The channel that a packet went to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) channel: u16,
    /// The opening of the channel; 0 for the receiver's own channel.
    pub(crate) opening: u32,
}

/// The surroundings of a receiver.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) config: &'a Config,
    pub(crate) group: &'a ChannelGroup,
    pub(crate) version: NvspVersion,
    pub(crate) settings: &'a Settings,
    pub(crate) statistics: &'a SharedStatistics,
}

impl Receiver {
    /// Returns the receiver of channel `index`, with all its sub-allocations free.
    pub(crate) fn new(index: u16, buffer: Arc<ReceiveBuffer>, channels: u16) -> Self {
        let share = Share::new(buffer.partition, Owner::Channel(index));
        Self::with_share(index, buffer, channels, share)
    }

    fn with_share(index: u16, buffer: Arc<ReceiveBuffer>, channels: u16, share: Share) -> Self {
        let Range { start, end } = buffer.partition.indices(Owner::Channel(index));
        let destinations = vec![Destination { channel: index, opening: 0 }; (end - start) as usize];
        let mut receiver = Self {
            index,
            buffer,
            share,
            first: start,
            targets: Vec::new(),
            touched: Vec::new(),
            destinations: destinations.into_boxed_slice(),
            coalesced: 0,
            unwanted: 0,
            starved: 0,
            space: SpaceMemory::default(),
        };
        receiver.set_channels(channels);
        receiver
    }

    /// Notes the number of channels, which only rises.
    pub(crate) fn set_channels(&mut self, channels: u16) {
        let count = usize::from(channels.max(self.index + 1)).max(self.targets.len());
        self.targets.resize_with(count, Target::default);
    }

    /// Returns the receive buffer.
    pub(crate) fn buffer(&self) -> &Arc<ReceiveBuffer> {
        &self.buffer
    }

    /// Returns true if a frame of any length can be received. One that does not fit would be lost.
    #[inline]
    pub(crate) fn has_space(&self, config: &Config) -> bool {
        self.share.available() as usize >= self.sub_allocations_of_frame(config)
    }

    /// Returns the use of the sub-allocations, and the drops since the call before.
    #[inline]
    pub(crate) fn take_counters(&mut self) -> ChannelCounters {
        let sub_allocations = self.destinations.len() as u32;
        ChannelCounters {
            sub_allocations,
            in_use: sub_allocations.saturating_sub(self.share.available()),
            unwanted: std::mem::take(&mut self.unwanted),
            starved: std::mem::take(&mut self.starved),
        }
    }

    /// Returns true if the guest has completed all packets.
    pub(crate) fn is_idle(&self) -> bool {
        self.share.is_idle()
    }

    /// Takes a completion of the guest. One that completes nothing changes nothing: a driver may be
    /// confused.
    #[inline]
    pub(crate) fn complete(&mut self, transaction: u64) {
        let Ok(count) = self.share.complete(transaction) else { return };
        let channel = self.destination(transaction).map_or(self.index, |one| one.channel);
        if let Some(target) = self.targets.get_mut(usize::from(channel)) {
            target.outstanding = target.outstanding.saturating_sub(count);
        }
    }

    /// Frees the sub-allocations of packets that went to channels which have closed since: the
    /// guest cannot complete them any more.
    #[cold]
    pub(crate) fn reclaim(&mut self, group: &ChannelGroup) {
        for packet in self.share.save() {
            let Some(destination) = self.destination(packet.transaction) else { continue };
            let Destination { channel, opening } = *destination;
            let is_open = opening == 0
                || group.inbox(channel).is_some_and(|inbox| inbox.opening() == Some(opening));
            if !is_open {
                self.complete(packet.transaction);
            }
        }
    }

    /// Receives a batch of frames from `queue`, and sends those that the guest wants.
    pub(crate) fn receive(
        &mut self,
        queue: &mut ChannelQueue,
        around: Surroundings<'_>,
        outbox: &mut Outbox<NetPacket>,
    ) -> Completed {
        let buffer = Arc::clone(&self.buffer);
        let wanted = self.sub_allocations_of_frame(around.config);
        let mut space = Space::new(&buffer, std::mem::take(&mut self.space));
        let mut taken = 0;
        let mut has_more = true;
        while has_more && taken < MAX_FRAMES {
            let received = queue.with(|queue| {
                let mut count = 0;
                // Without space for the longest frame, all stay with the backend.
                while count < LOCKED_FRAMES
                    && space.fill(&mut self.share, wanted)
                    && self.receive_one(&mut space, queue, around, outbox)
                {
                    count += 1;
                }
                count
            });
            let count = received.unwrap_or(0);
            taken += count;
            has_more = count == LOCKED_FRAMES;
        }
        self.space = space.release(&mut self.share);
        let has_sent = !self.touched.is_empty();
        while let Some(channel) = self.touched.pop() {
            self.flush(channel, around, outbox);
        }
        match taken {
            0 => Completed::Nothing,
            // The worker sleeps between rounds that only drop frames: those have no limit.
            MAX_FRAMES if has_sent => Completed::CallAgain,
            _ => Completed::Some,
        }
    }

    /// Returns the number of sub-allocations that the longest frame takes: at most those that the
    /// channel may use, and one at least.
    fn sub_allocations_of_frame(&self, config: &Config) -> usize {
        if !config.coalesces {
            return 1;
        }
        let each = self.buffer.geometry.usable() - FRAME_OFFSET;
        let most = self.destinations.len().min(config.max_ranges).max(1);
        (MAX_COALESCED_FRAME.div_ceil(each.max(1)) as usize).min(most)
    }

    /// Receives one frame to `space`. Returns false if the backend has none.
    #[inline]
    fn receive_one(
        &mut self,
        space: &mut Space<'_>,
        queue: &mut dyn Queue,
        around: Surroundings<'_>,
        outbox: &mut Outbox<NetPacket>,
    ) -> bool {
        let received = match queue.receive(space.pieces()) {
            Ok(Some(received)) => received,
            Err(ReceiveError::TooLong) => {
                around.statistics.count_too_long();
                self.unwanted = self.unwanted.wrapping_add(1);
                return true;
            }
            Ok(None) | Err(ReceiveError::LinkDown | ReceiveError::Os(_)) => return false,
        };
        let is_whole = received.header.gso_type == 0;
        let limit = around.config.max_receive_frame as usize;
        match inspect(space.pieces(), received, around.settings) {
            // A whole frame may be no longer than the guest's MTU, however much space is left.
            Some(frame) if is_whole && frame.length > limit => {
                around.statistics.count_too_long();
                self.unwanted = self.unwanted.wrapping_add(1);
            }
            Some(frame) => self.add(&frame, space, around, outbox),
            None => self.unwanted = self.unwanted.wrapping_add(1),
        }
        true
    }

    /// Adds a frame in `space` to the batch of its channel. It is dropped if the channel has its
    /// part of the sub-allocations in use, so that one channel cannot starve the others.
    #[inline]
    fn add(
        &mut self,
        frame: &InspectedFrame,
        space: &mut Space<'_>,
        around: Surroundings<'_>,
        outbox: &mut Outbox<NetPacket>,
    ) {
        let count = space.count((frame.offset + frame.length) as u32);
        let mut channel = self.index;
        if around.group.has_one_reader() {
            channel = self.channel_of(frame, around.settings);
            let target = &self.targets[usize::from(channel)];
            let limit = self.destinations.len() / self.targets.len().max(1);
            let in_use = target.outstanding as usize + target.batch.len();
            // A channel that has nothing may have one frame, however small its part is.
            if in_use != 0 && in_use + count > limit {
                self.starved = self.starved.wrapping_add(1);
                return;
            }
        }
        let batched = self.targets[usize::from(channel)].batch.len();
        if batched != 0 && batched + count > around.config.max_ranges {
            self.flush(channel, around, outbox);
        }
        let target = &mut self.targets[usize::from(channel)];
        let is_written = match count {
            1 => target.add_whole(frame, space),
            _ => {
                self.coalesced = self.coalesced.wrapping_add(1);
                target.add_parts(frame, space, count, self.coalesced)
            }
        };
        if !is_written {
            return;
        }
        around.statistics.count_received(frame.destination, frame.length as u32);
        space.take(count);
        if batched == 0 && !self.touched.contains(&channel) {
            self.touched.push(channel);
        }
    }

    /// Returns the channel of a frame.
    #[inline]
    fn channel_of(&self, frame: &InspectedFrame, settings: &Settings) -> u16 {
        let rss = &settings.rss;
        let channel = if rss.is_enabled { rss.table.channel(frame.hash) } else { self.index };
        if usize::from(channel) < self.targets.len() { channel } else { self.index }
    }

    /// Sends the batch of `channel` as one packet: on the own ring, or through the other channel's
    /// inbox. A closed channel's frames go to the own ring.
    fn flush(&mut self, channel: u16, around: Surroundings<'_>, outbox: &mut Outbox<NetPacket>) {
        let target = &mut self.targets[usize::from(channel)];
        let sent = self.share.send(&target.batch);
        let count = target.batch.len() as u32;
        target.batch.clear();
        let Ok(id) = sent else { return target.ranges.clear() };
        let headers = around.group.headers();
        let packet = NetPacket::frames(around.version, self.buffer.id, &target.ranges, headers);
        target.ranges.clear();
        let own = Destination { channel: self.index, opening: 0 };
        let passed = match around.group.inbox(channel) {
            Some(inbox) if channel != self.index => inbox.pass(id.word(), packet),
            _ => Err(packet),
        };
        let destination = match passed {
            Ok(opening) => Destination { channel, opening },
            Err(packet) => {
                outbox.request(id.word(), packet);
                own
            }
        };
        if let Some(place) = self.destinations.get_mut((id.index() - self.first) as usize) {
            *place = destination;
        }
        self.targets[usize::from(destination.channel)].outstanding += count;
    }

    fn destination(&self, transaction: u64) -> Option<&Destination> {
        let index = TransactionId::from_word(transaction)?.index();
        self.destinations.get(index.checked_sub(self.first)? as usize)
    }
}
