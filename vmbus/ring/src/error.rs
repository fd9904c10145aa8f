//! Errors: of the peer ([`RingError`]), of one packet ([`PacketError`],
//! [`WriteError`]), with the memory ([`MapError`]).

use thiserror::Error;

/// The peer broke the ring. The ring is stopped for good: every later call returns the same error
/// and touches no shared memory.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingError {
    /// The producer's index lies outside the data or between two 8-byte units.
    #[error("write index {value:#x} is not an 8-byte unit of {data_size:#x} bytes of ring data")]
    WriteIndex {
        /// The index as the producer wrote it.
        value: u32,
        /// Bytes of the data area.
        data_size: u32,
    },
    /// The consumer's index lies outside the data or between two 8-byte units.
    #[error("read index {value:#x} is not an 8-byte unit of {data_size:#x} bytes of ring data")]
    ReadIndex {
        /// The index as the consumer wrote it.
        value: u32,
        /// Bytes of the data area.
        data_size: u32,
    },
    /// Fewer bytes wait than a descriptor has.
    #[error("{available} bytes wait, too few for a packet descriptor")]
    NoDescriptor {
        /// Bytes between the two indices.
        available: u32,
    },
    /// The packet claims to be shorter than its own descriptor.
    #[error("packet of {length} bytes is shorter than its descriptor")]
    ShortPacket {
        /// Claimed length without trailer, in bytes.
        length: u32,
    },
    /// The payload is claimed to begin inside the descriptor or behind the packet.
    #[error("payload at byte {data_offset} of a packet of {length} bytes")]
    DataOffset {
        /// Claimed offset of the payload, in bytes.
        data_offset: u32,
        /// Claimed length without trailer, in bytes.
        length: u32,
    },
    /// The packet with its trailer is longer than the bytes in the ring.
    #[error("packet of {length} bytes and trailer exceeds the {available} bytes that wait")]
    LongPacket {
        /// Claimed length without trailer, in bytes.
        length: u32,
        /// Bytes between the two indices.
        available: u32,
    },
    /// A packet type that no channel uses (vmbus-core 6.3).
    #[error("packet type {value:#x} is not used on any channel")]
    PacketType {
        /// The type field.
        value: u16,
    },
}

/// One packet breaks the rules of its type; the ring itself is sound, so the device decides what
/// becomes of the channel.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PacketError {
    /// The packet is of a type that names no external pages.
    #[error("the packet has no external data")]
    NoExternalData,
    /// The packet's header has no room for the count of ranges.
    #[error("a header of {header} bytes has no room for a range list")]
    ShortHeader {
        /// Bytes in front of the payload.
        header: u32,
    },
    /// No range, or more than the limit.
    #[error("{count} ranges; 1 to {limit} are allowed")]
    RangeCount {
        /// Claimed count.
        count: u32,
        /// The limit in force.
        limit: u32,
    },
    /// A range runs over the end of the list, or the list ends before its ranges.
    #[error("the ranges do not fit the range list of the packet")]
    RangeList,
    /// The ranges describe more bytes than the limit.
    #[error("the ranges describe more than {limit} bytes")]
    TooManyBytes {
        /// The limit in force.
        limit: u64,
    },
    /// A range itself is wrong: empty, offset beyond its first page, page outside guest memory.
    #[error("bad range: {0}")]
    Range(#[from] vmbus_gpadl::RangeError),
}

/// Why a packet was not written. The batch is as before.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError {
    /// The ring has no room now: wait with `Outgoing::wait_for_space(needed)`.
    #[error("ring full: {needed} bytes needed")]
    Full {
        /// Bytes of ring that the packet takes, trailer included.
        needed: u32,
    },
    /// The packet can never be sent on this ring.
    #[error("packet of {length} bytes exceeds the {limit} bytes that this ring takes")]
    TooBig {
        /// Bytes of the packet without its trailer (saturated).
        length: u32,
        /// The longest packet without trailer that this ring takes.
        limit: u32,
    },
    /// The peer broke the ring.
    #[error(transparent)]
    Corrupt(#[from] RingError),
}

/// Why pages cannot serve as a ring.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MapError {
    /// The ring needs a control page and data, and not more than the limit.
    #[error(
        "a ring of {pages} pages; {} to {} are allowed",
        crate::limits::MIN_RING_PAGES,
        crate::limits::MAX_RING_PAGES
    )]
    Size {
        /// Pages asked for.
        pages: usize,
    },
    /// The buffer ends before the last page of the ring.
    #[error("ring pages {first} to {first}+{pages} lie beyond a buffer of {bytes} bytes")]
    BeyondBuffer {
        /// First page of the ring in the buffer.
        first: usize,
        /// Pages of the ring.
        pages: usize,
        /// Bytes of the buffer.
        bytes: usize,
    },
    /// A ring page is not one page of guest memory: the buffer begins inside a page or has a
    /// partial page before the ring's end.
    #[error("the ring's pages do not start and end at page boundaries of guest memory")]
    NotPages,
    /// The host refused memory (only [`crate::PlainMemory`] asks for it).
    #[error("cannot allocate memory for a ring: {0}")]
    Memory(std::io::Error),
}
