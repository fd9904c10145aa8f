//! Errors of the peer ([`RingError`]), of one packet ([`PacketError`], [`WriteError`]) and of the
//! memory ([`MapError`]).

use thiserror::Error;

/// An error of the peer, after which the ring is stopped permanently. Every later call returns the
/// same error and accesses no shared memory.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingError {
    /// The producer's index is outside the data or is not a multiple of 8.
    #[error("write index {value:#x} is not an 8-byte unit of {data_size:#x} bytes of ring data")]
    WriteIndex {
        /// The index that the producer wrote.
        value: u32,
        /// Bytes of the data area.
        data_size: u32,
    },
    /// The consumer's index is outside the data or is not a multiple of 8.
    #[error("read index {value:#x} is not an 8-byte unit of {data_size:#x} bytes of ring data")]
    ReadIndex {
        /// The index that the consumer wrote.
        value: u32,
        /// Bytes of the data area.
        data_size: u32,
    },
    /// The ring contains fewer bytes than a descriptor has.
    #[error("the ring contains {available} bytes, too few for a packet descriptor")]
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
    /// The payload is claimed to begin inside the descriptor or after the packet.
    #[error("payload at byte {data_offset} of a packet of {length} bytes")]
    DataOffset {
        /// Claimed offset of the payload, in bytes.
        data_offset: u32,
        /// Claimed length without trailer, in bytes.
        length: u32,
    },
    /// The packet with its trailer is longer than the bytes in the ring.
    #[error("packet of {length} bytes and trailer exceeds the {available} bytes in the ring")]
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

/// An error of one packet, which breaks the rules of its type. The ring itself is sound, so the
/// device decides whether the channel can continue.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PacketError {
    /// The packet's type has no external pages.
    #[error("the packet has no external data")]
    NoExternalData,
    /// The packet's header is too short for the count of ranges.
    #[error("a header of {header} bytes is too short for a range list")]
    ShortHeader {
        /// Bytes before the payload.
        header: u32,
    },
    /// The packet has no range, or more ranges than the limit.
    #[error("{count} ranges; 1 to {limit} are allowed")]
    RangeCount {
        /// Claimed count.
        count: u32,
        /// The limit in force.
        limit: u32,
    },
    /// A range crosses the end of the list, or the list ends before its ranges.
    #[error("the ranges do not fit the range list of the packet")]
    RangeList,
    /// The ranges describe more bytes than the limit.
    #[error("the ranges describe more than {limit} bytes")]
    TooManyBytes {
        /// The limit in force.
        limit: u64,
    },
    /// A range itself is invalid: empty, offset beyond its first page, page outside guest memory.
    #[cfg(feature = "std")]
    #[error("bad range: {0}")]
    Range(#[from] vmbus_gpadl::RangeError),
}

/// The reasons that a packet was not written. The batch is unchanged.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError {
    /// The ring has not enough free space now: wait with `Outgoing::wait_for_space(needed)`.
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

/// The reasons that pages cannot be used as a ring.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MapError {
    /// The number of pages is below the minimum (a control page and data) or above the limit.
    #[error(
        "a ring of {pages} pages; {} to {} are allowed",
        crate::limits::MIN_RING_PAGES,
        crate::limits::MAX_RING_PAGES
    )]
    Size {
        /// The number of pages in the request.
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
    /// A page of the ring is not one page of guest memory: the buffer begins inside a page or has a
    /// partial page before the ring's end.
    #[error("the ring's pages do not start and end at page boundaries of guest memory")]
    NotPages,
    /// The host refused memory. Only `PlainMemory` allocates it.
    #[cfg(feature = "std")]
    #[error("cannot allocate memory for a ring: {0}")]
    Memory(std::io::Error),
}
