//! Frames to the guest: from the backend into the receive buffer, and to the ring of a channel.

mod parts;
mod saved;

use std::ops::Range;
use std::sync::Arc;

use synthvm_net::{Pieces, ReceiveError};
use vm_memory::VolatileSlice;
use vmbus_device::{Completed, Outbox};
use vmbus_ring::TransferRange;

use self::parts::{NoSpace, add_space};

use crate::config::{Config, ReceiveBuffer};
use crate::counters::{ChannelCounters, SharedStatistics};
use crate::group::ChannelGroup;
use crate::inspect::{InspectedFrame, inspect};
use crate::packet::NetPacket;
use crate::protocol::limits::{FRAME_OFFSET, MAX_COALESCED_FRAME, VLAN_TAG};
use crate::protocol::nvsp::NvspVersion;
use crate::protocol::oid::Settings;
use crate::protocol::sub_allocations::{Owner, Share, SubAllocation, TransactionId};
use crate::queue::ChannelQueue;

/// Most frames of one round: packets of the guest have their turn in between.
const MAX_FRAMES: usize = 64;

/// Most frames in one packet. Guests accept 375, and smaller packets reach them earlier.
pub(crate) const MAX_PACKET_FRAMES: usize = 64;

/// Frames are received four bytes before their usual place, so that one with a tag still fits: it
/// begins there once its tag is removed.
const SPACE_OFFSET: u32 = FRAME_OFFSET - VLAN_TAG;

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
    // Kept for their memory.
    space: Vec<SubAllocation>,
    fragments: Vec<(SubAllocation, TransferRange)>,
    pieces: Pieces<'static>,
}

/// The frames of one channel in this round, and those that the guest has not completed.
#[derive(Default)]
struct Target {
    batch: Vec<SubAllocation>,
    ranges: Vec<TransferRange>,
    /// Sub-allocations of packets that the guest has not completed.
    outstanding: u32,
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
            space: Vec::new(),
            fragments: Vec::new(),
            pieces: Pieces::new(),
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
        let mut taken = 0;
        while taken < MAX_FRAMES {
            while self.space.len() < wanted {
                let Some(free) = self.share.reserve() else { break };
                self.space.push(free);
            }
            // Without space for the longest frame, all stay with the backend.
            if self.space.len() < wanted || !self.receive_one(&buffer, queue, around, outbox) {
                break;
            }
            taken += 1;
        }
        for unused in self.space.drain(..) {
            let _ = self.share.cancel(unused);
        }
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

    /// Receives one frame to the reserved space. Returns false if the backend has none.
    fn receive_one(
        &mut self,
        buffer: &ReceiveBuffer,
        queue: &mut ChannelQueue,
        around: Surroundings<'_>,
        outbox: &mut Outbox<NetPacket>,
    ) -> bool {
        let mut pieces = std::mem::take(&mut self.pieces).recycle();
        let (received, memory) = match add_space(buffer, &self.space, &mut pieces) {
            Ok(memory) => (queue.with(|queue| queue.receive(&pieces)), memory),
            Err(NoSpace) => (None, None),
        };
        let (has_frame, frame) = match received {
            Some(Ok(Some(received))) => {
                let is_whole = received.header.gso_type == 0;
                let frame = inspect(&pieces, received, around.settings);
                // A whole frame may be no longer than the guest's MTU, however much space is left.
                let limit = around.config.max_receive_frame as usize;
                let is_too_long = |frame: &InspectedFrame| is_whole && frame.length > limit;
                if frame.as_ref().is_some_and(is_too_long) {
                    around.statistics.count_too_long();
                }
                (true, frame.filter(|frame| !is_too_long(frame)))
            }
            Some(Err(ReceiveError::TooLong)) => {
                around.statistics.count_too_long();
                (true, None)
            }
            None | Some(Ok(None) | Err(ReceiveError::LinkDown | ReceiveError::Os(_))) => {
                (false, None)
            }
        };
        self.pieces = pieces.recycle();
        match frame {
            Some(frame) => self.add(&frame, memory, around, outbox),
            None if has_frame => self.unwanted = self.unwanted.wrapping_add(1),
            None => {}
        }
        has_frame
    }

    /// Adds a frame to the batch of its channel. `memory`: see `write_headers`. It is dropped if the channel has its part of the
    /// sub-allocations in use, so that one channel cannot starve the others.
    fn add(
        &mut self,
        frame: &InspectedFrame,
        memory: Option<VolatileSlice<'_>>,
        around: Surroundings<'_>,
        outbox: &mut Outbox<NetPacket>,
    ) {
        let channel = match around.group.has_one_reader() && around.settings.rss.is_enabled {
            true => around.settings.rss.table.channel(frame.hash),
            false => self.index,
        };
        let channel = if usize::from(channel) < self.targets.len() { channel } else { self.index };
        self.split(frame);
        let target = &self.targets[usize::from(channel)];
        let limit = self.destinations.len() / self.targets.len().max(1);
        let batched = target.batch.len();
        let in_use = target.outstanding as usize + batched;
        // A channel that has nothing may have one frame, however small its part is.
        let exceeds = in_use != 0 && in_use + self.fragments.len() > limit;
        if around.group.has_one_reader() && exceeds {
            self.starved = self.starved.wrapping_add(1);
            return self.fragments.clear();
        }
        if !self.write_headers(frame, memory) {
            return self.fragments.clear();
        }
        around.statistics.count_received(frame.destination, frame.length as u32);
        if batched + self.fragments.len() > around.config.max_ranges {
            self.flush(channel, around, outbox);
        }
        let target = &mut self.targets[usize::from(channel)];
        if target.batch.is_empty() && !self.touched.contains(&channel) {
            self.touched.push(channel);
        }
        let count = self.fragments.len();
        if count == self.space.len() {
            self.space.clear();
        } else {
            self.space.drain(..count);
        }
        for (sub_allocation, range) in self.fragments.drain(..) {
            target.batch.push(sub_allocation);
            target.ranges.push(range);
        }
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
