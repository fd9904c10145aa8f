//! The types of a client that refer to each other: the client has channels, a channel has a driver,
//! and the driver's callbacks get the channel. Their functions are in the modules that import this
//! one.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use vmbus_protocol::{Guid, Version};

use crate::config::Config;
use crate::error::Error;
use crate::handles::ChannelId;
use crate::mdl::Mdl;
use crate::message::{Offer, Reply};
use crate::platform::{IncomingPacket, OutgoingKind, Platform};
use crate::received::Received;
use crate::status::NtStatus;

/// The first GPADL handle, as in Linux.
const FIRST_GPADL: u32 = 0xE1E10;

/// A guest's VMBus: connection, offers, channels. Driven by one thread.
///
/// Every call that waits (`connect`, creating a GPADL, a synchronous request, ...) pumps in the
/// meantime: it takes messages and serves the rings of other channels. Otherwise the client only
/// works in [`Client::poll`], [`Client::wait`] and [`Client::run_until_idle`].
pub struct Client<P: Platform> {
    pub(crate) platform: P,
    pub(crate) version: Version,
    pub(crate) connection_id: u32,
    pub(crate) target_vp: u32,
    pub(crate) offers: BTreeMap<u32, Offer>,
    pub(crate) offers_delivered: bool,
    /// Rescinded relids that the client has not released yet.
    pub(crate) rescinded: BTreeSet<u32>,
    pub(crate) channels: BTreeMap<ChannelId, Record<P>>,
    pub(crate) answers: BTreeMap<u64, Result<Vec<u8>, Error>>,
    pub(crate) next_answer: u64,
    pub(crate) next_channel: u32,
    pub(crate) next_gpadl: u32,
    pub(crate) replies: VecDeque<Reply>,
    pub(crate) stats: Stats,
}

/// Counters, of faults among others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages from the host.
    pub messages: u64,
    /// Messages from the host of unknown type, or too short.
    pub unknown_messages: u64,
    /// Replies without a request.
    pub stray_replies: u64,
    /// Events for channels that are not open.
    pub stray_events: u64,
    /// Completions for packets that are not outstanding.
    pub stray_completions: u64,
    /// Signals to the host.
    pub signals: u64,
    /// GPADLs that a driver had not deleted when its closed callback ended.
    pub leaked_gpadls: u64,
}

impl<P: Platform> Client<P> {
    pub(crate) fn new(platform: P, version: Version, target_vp: u32) -> Self {
        Self {
            platform,
            version,
            connection_id: 0,
            target_vp,
            offers: BTreeMap::new(),
            offers_delivered: false,
            rescinded: BTreeSet::new(),
            channels: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_answer: 0,
            next_channel: 1,
            next_gpadl: FIRST_GPADL,
            replies: VecDeque::new(),
            stats: Stats::default(),
        }
    }
}

/// A channel of a client, borrowed for some calls. [`Client::channel`] returns one, and callbacks
/// get one.
pub struct Channel<'a, P: Platform> {
    pub(crate) client: &'a mut Client<P>,
    pub(crate) id: ChannelId,
}

/// The callbacks of a client driver (kmcl.md 3.1). Each has an empty default.
///
/// A callback gets its channel and may make all calls that are legal at that point; pausing,
/// starting, enabling and disabling are not. While a callback waits (for a GPADL, for an answer),
/// the rest of the client keeps working: other channels' callbacks may run inside the wait. This
/// channel's callbacks do not run; its packets wait.
pub trait Driver<P: Platform>: Send {
    /// The channel is open; packets are not flowing yet. Create long-lived GPADLs here.
    ///
    /// # Errors
    /// Any failure status closes the channel and disables it.
    fn opened(&mut self, channel: &mut Channel<'_, P>) -> Result<(), NtStatus> {
        let _ = channel;
        Ok(())
    }

    /// Packets may be sent. None is received yet, so the callback must not wait for one.
    fn started(&mut self, channel: &mut Channel<'_, P>) {
        let _ = channel;
    }

    /// Packets flow both ways: the place for a synchronous negotiation.
    fn post_started(&mut self, channel: &mut Channel<'_, P>) {
        let _ = channel;
    }

    /// No packet is delivered until the next start. Every delivered packet must be completed by the
    /// end of this callback.
    fn suspend(&mut self, channel: &mut Channel<'_, P>) {
        let _ = channel;
    }

    /// The channel closes: delete all GPADLs here.
    fn closed(&mut self, channel: &mut Channel<'_, P>) {
        let _ = channel;
    }

    /// A packet was delivered. It must be completed by exactly one [`Channel::packet_complete`],
    /// now or later.
    fn process_packet(&mut self, channel: &mut Channel<'_, P>, packet: Received);

    /// A batch has ended: `packets` were delivered, and the ring is empty or the queue is blocked.
    fn processing_complete(&mut self, channel: &mut Channel<'_, P>, packets: u32) {
        let _ = (channel, packets);
    }

    /// The device was found but the channel could not be opened; it is disabled again.
    fn pnp_failure(&mut self, status: NtStatus) {
        let _ = status;
    }
}

/// The result of a packet.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The host's completion payload (a multiple of 8 bytes), or no bytes for a packet without a
    /// completion.
    pub result: Result<&'a [u8], Error>,
}

/// A completion routine: called once, when the host has completed the packet, or (without
/// `WAIT_FOR_COMPLETION`) when it is in the ring, or when it was cancelled.
pub(crate) type CompletionRoutine<P> = Box<dyn FnOnce(&mut Channel<'_, P>, Answer<'_>) + Send>;

/// The client's record of a channel.
pub(crate) struct Record<P: Platform> {
    pub(crate) config: Config,
    pub(crate) enabled: bool,
    /// The caller has not paused the channel.
    pub(crate) active: bool,
    pub(crate) driver: Option<Box<dyn Driver<P>>>,
    /// A callback is using the driver.
    pub(crate) busy: bool,
    /// The error of the last enable, if it failed.
    pub(crate) failure: Option<Error>,
    pub(crate) open: Option<Open<P>>,
    /// Packets that are not in the ring yet, in order.
    pub(crate) queue: VecDeque<Queued<P>>,
    /// Packets in the ring or at the host.
    pub(crate) in_flight: BTreeMap<u64, Routine<P>>,
    pub(crate) next_transaction: u64,
    /// Incremented with each close: completions from before are invalid.
    pub(crate) epoch: u32,
}

/// The parts that only an open channel has.
pub(crate) struct Open<P: Platform> {
    pub(crate) relid: u32,
    pub(crate) connection_id: u32,
    pub(crate) instance: Guid,
    pub(crate) rings: P::Rings,
    pub(crate) ring_pages: Vec<u64>,
    pub(crate) ring_gpadl: u32,
    pub(crate) gpadls: BTreeMap<u32, Kept>,
    /// Packets may go into the ring: from before the started callback to the end of suspend.
    pub(crate) sending: bool,
    /// Packets may be delivered: from after the started callback to the start of suspend.
    pub(crate) receiving: bool,
    /// The ring must be checked, as the host has signalled or for another reason.
    pub(crate) event: bool,
    /// The quota is used up: only a completion resumes reading.
    pub(crate) blocked: bool,
    /// The ring is not read any more: the driver failed a packet, or the host broke the ring.
    pub(crate) stopped: Option<Error>,
    /// Packets read from the ring and not delivered yet.
    pub(crate) pending: VecDeque<IncomingPacket>,
    /// Number of packets delivered and not completed yet.
    pub(crate) outstanding: u32,
    /// Number of packets delivered since the last processing-complete callback.
    pub(crate) delivered: u32,
}

impl<P: Platform> Default for Record<P> {
    fn default() -> Self {
        Self {
            config: Config::default(),
            enabled: false,
            active: true,
            driver: None,
            busy: false,
            failure: None,
            open: None,
            queue: VecDeque::new(),
            in_flight: BTreeMap::new(),
            next_transaction: 1,
            epoch: 0,
        }
    }
}

impl<P: Platform> Record<P> {
    pub(crate) fn relid(&self) -> Option<u32> {
        self.open.as_ref().map(|open| open.relid)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(crate) fn has_gpadl(&self, id: u32) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| open.ring_gpadl == id || open.gpadls.contains_key(&id))
    }

    pub(crate) fn event(&mut self) {
        if let Some(open) = &mut self.open {
            open.event = true;
        }
    }
}

/// The receiver of a packet's result.
pub(crate) enum Routine<P: Platform> {
    None,
    Call(CompletionRoutine<P>),
    /// A synchronous request: the answer goes to the slot with this key.
    Sync(u64),
}

impl<P: Platform> Routine<P> {
    pub(crate) fn is_sync(&self, key: u64) -> bool {
        matches!(self, Self::Sync(other) if *other == key)
    }
}

/// A packet that waits for ring space.
pub(crate) struct Queued<P: Platform> {
    pub(crate) kind: OutgoingKind,
    pub(crate) transaction_id: u64,
    pub(crate) wait: bool,
    pub(crate) header: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) routine: Routine<P>,
}

/// The client's record of a GPADL.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The buffer, if the client locked it.
    pub(crate) locked: Option<Mdl>,
    /// A teardown was requested, and the host has not answered yet.
    pub(crate) going: bool,
}
