//! The interface of the client to the machine it runs in.

use alloc::vec::Vec;
use core::time::Duration;

use thiserror::Error;
use vmbus_protocol::limits::MAX_MESSAGE_SIZE;
use vmbus_protocol::offer::HvStatus;

use crate::handles::GpadlFlags;
use crate::mdl::Mdl;
use crate::status::NtStatus;

/// The machine: hypercalls, the message slot, the event flags, guest memory. All methods may be
/// called while the client is in any state.
///
/// The client is driven by one thread and blocks only in [`Platform::wait`].
pub trait Platform {
    /// The guest's end of a channel's two rings.
    type Rings: Rings;

    /// HvPostMessage with message type 1; at most 240 bytes.
    fn post_message(&self, connection_id: u32, message: &[u8]) -> HvStatus;

    /// HvSignalEvent with flag 0.
    fn signal_event(&self, connection_id: u32) -> HvStatus;

    /// Takes the next channel message out of the message slot, and lets the host fill it again.
    fn take_message(&self) -> Option<HostBytes>;

    /// Tests and clears the event flags, and hands each that was set to `sink`.
    fn take_events(&self, sink: &mut dyn FnMut(u16));

    /// Waits for a message or an event flag.
    fn wait(&self) -> Wake;

    /// Waits as [`Platform::wait`] does, and returns [`Wake::Never`] once `time` has passed by
    /// [`Platform::now`]. A machine that stops its clock while it is idle, as a stepped one does,
    /// need not wait at all.
    fn wait_at_most(&self, time: Duration) -> Wake {
        let _ = time;
        self.wait()
    }

    /// Returns the time of a monotonic clock with any start, for timeouts. Without a clock a
    /// timeout ends when no more work can come.
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    /// Runs the rest of the machine for a while, if it runs in this thread. Returns true if it did
    /// any work.
    fn step(&self) -> bool {
        false
    }

    /// Gives a busy host time before attempt number `attempt` (from 1).
    fn back_off(&self, attempt: u32);

    /// Returns the guest page numbers of free pages for ring buffers, zeroed or not, in any order.
    /// `None` if there are not enough.
    fn allocate_pages(&self, count: usize) -> Option<Vec<u64>>;

    /// Frees pages of [`Platform::allocate_pages`].
    fn free_pages(&self, pages: &[u64]);

    /// Maps the rings of a channel: pages `0..downstream_page` are guest→host, the rest host→guest,
    /// each with its control page first. Both are initialised as empty, with their features
    /// declared, and the host→guest ring is masked.
    ///
    /// # Errors
    /// The status of the open call.
    fn map_rings(&self, pages: &[u64], downstream_page: usize) -> Result<Self::Rings, NtStatus>;

    /// Probes a buffer at a virtual address, locks its pages, and returns an MDL for it.
    /// [`Platform::unlock`] undoes it.
    ///
    /// # Errors
    /// The status for the caller: the address is not mapped, or there is no memory.
    fn probe_and_lock(&self, address: u64, bytes: u32) -> Result<Mdl, NtStatus>;

    /// Undoes [`Platform::probe_and_lock`].
    fn unlock(&self, mdl: &Mdl);

    /// Called after the host has confirmed a GPADL. The wire carries no flags; this call is for
    /// platforms that can pass them to their host in another way.
    fn gpadl_created(&self, _relid: u32, _id: u32, _flags: GpadlFlags) {}
}

/// The reason why [`Platform::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// There is work, or there may be.
    Something,
    /// There is no work and none can come: the whole machine is idle, or the platform's timeout has
    /// passed.
    Never,
}

/// One channel message from the host, a private copy.
#[derive(Clone, Copy)]
pub struct HostBytes {
    bytes: [u8; MAX_MESSAGE_SIZE],
    len: usize,
}

impl HostBytes {
    /// The first 240 bytes of `message`.
    #[must_use]
    pub fn new(message: &[u8]) -> Self {
        let len = message.len().min(MAX_MESSAGE_SIZE);
        let mut bytes = [0; MAX_MESSAGE_SIZE];
        bytes[..len].copy_from_slice(&message[..len]);
        Self { bytes, len }
    }

    /// The bytes, header included.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl core::fmt::Debug for HostBytes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("HostBytes").field(&self.as_bytes()).finish()
    }
}

/// The guest's end of a channel's rings. Ring code needs mapped memory and so depends on the
/// machine. The loopback VM uses `vmbus-ring`, which has the same code for guest and host.
pub trait Rings {
    /// Writes one packet to the host. Returns true if the host may sleep and must be signalled.
    ///
    /// # Errors
    /// [`RingFault`]; nothing was written.
    fn write(&mut self, packet: &OutgoingPacket<'_>) -> Result<bool, RingFault>;

    /// Arranges for a signal when more than `needed` bytes are free.
    ///
    /// # Errors
    /// [`RingFault::Corrupt`].
    fn wait_for_space(&mut self, needed: u32) -> Result<Space, RingFault>;

    /// Moves up to `max` packets from the host's ring to `out`. Returns true if the host waits for
    /// the space and must be signalled.
    ///
    /// # Errors
    /// [`RingFault::Corrupt`]: the ring is stopped for good.
    fn read(&mut self, max: usize, out: &mut Vec<IncomingPacket>) -> Result<bool, RingFault>;

    /// Asks the host not to signal while the ring is drained.
    fn mask(&mut self);

    /// Asks the host to signal again. Returns true if packets wait, and the ring must be drained
    /// again.
    ///
    /// # Errors
    /// [`RingFault::Corrupt`].
    fn unmask(&mut self) -> Result<bool, RingFault>;
}

/// The kind of a packet that a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutgoingKind {
    /// Payload only.
    InBand,
    /// Payload, and a range list in the header (vmbus-core 6.3).
    GpaDirect,
    /// The answer to a packet of the host.
    Completion,
}

/// A packet for the host.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingPacket<'a> {
    /// Its kind.
    pub kind: OutgoingKind,
    /// Echoed in the completion; in a completion the id of the request.
    pub transaction_id: u64,
    /// The host must complete it.
    pub completion_requested: bool,
    /// Between descriptor and payload: the range list.
    pub header: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

/// The kind of a packet from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncomingKind {
    /// Payload only.
    InBand,
    /// Payload, and ranges of a transfer-page set: set id, and (byte count, byte offset) pairs.
    TransferPages(u16, Vec<(u32, u32)>),
    /// The answer to a packet of ours.
    Completion,
}

/// A packet from the host, copied out of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingPacket {
    /// Its kind.
    pub kind: IncomingKind,
    /// The sender's transaction id.
    pub transaction_id: u64,
    /// The host wants a completion.
    pub completion_requested: bool,
    /// A multiple of 8 bytes: up to 7 bytes of padding count.
    pub payload: Vec<u8>,
}

/// The result of a wait for space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// The space is available now.
    Ready,
    /// The host will signal.
    Signalled,
    /// The host is too old to signal: try again now and then.
    Poll,
}

/// The error of a ring operation.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RingFault {
    /// The host broke the ring.
    #[error("the host broke the ring")]
    Corrupt,
    /// The packet is too long for this ring.
    #[error("packet of {length} bytes exceeds the {limit} bytes that this ring takes")]
    TooBig {
        /// Bytes of the packet.
        length: u32,
        /// The longest that the ring takes.
        limit: u32,
    },
    /// The ring has too little space now.
    #[error("ring full: {needed} bytes needed")]
    Full {
        /// Bytes of ring that the packet takes.
        needed: u32,
    },
}
