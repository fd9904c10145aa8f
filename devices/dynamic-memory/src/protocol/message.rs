//! Messages: their form, checked, and nothing of their order (spec integration-services section 9).

use serde::{Deserialize, Serialize};
use thiserror::Error;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{PageRange, Version};

/// Maximum bytes of a message, in both directions.
pub const MAX_MESSAGE: usize = 4096;

/// Bytes of a message's header.
const HEADER: usize = size_of::<Header>();

/// Bytes before the ranges of a message.
const BEFORE_RANGES: usize = HEADER + 8;

/// Maximum ranges of a message.
pub const MAX_RANGES: usize = (MAX_MESSAGE - BEFORE_RANGES) / 8;

/// Types of messages.
mod kind {
    pub(super) const VERSION_REQUEST: u16 = 1;
    pub(super) const VERSION_RESPONSE: u16 = 2;
    pub(super) const CAPABILITIES: u16 = 3;
    pub(super) const CAPABILITIES_RESPONSE: u16 = 4;
    pub(super) const STATUS: u16 = 5;
    pub(super) const BALLOON_REQUEST: u16 = 6;
    pub(super) const BALLOON_RESPONSE: u16 = 7;
    pub(super) const UNBALLOON_REQUEST: u16 = 8;
    pub(super) const UNBALLOON_RESPONSE: u16 = 9;
    pub(super) const HOT_ADD_REQUEST: u16 = 10;
    pub(super) const HOT_ADD_RESPONSE: u16 = 11;
    pub(super) const INFORMATION: u16 = 12;
}

/// The information type of the maximum number of pages.
const MAX_PAGE_COUNT: u32 = 0;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    kind: U16,
    /// Bytes of the whole message.
    size: U16,
    /// Each end numbers its own messages. Linux does not repeat the number of a request.
    transaction: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Capabilities {
    bits: U64,
    min_pages: U64,
    max_page: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StatusBody {
    available: U64,
    committed: U64,
    page_file: U64,
    free: U64,
    page_file_writes: U32,
    io_difference: U32,
}

/// The guest's report of its memory, in pages of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pressure {
    /// Memory that the guest can use without swapping.
    pub available: u64,
    /// Memory that the guest's programs have been promised, with all that is in the balloon and a
    /// floor that the guest needs itself.
    pub committed: u64,
}

/// The result of a hot add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HotAddOutcome {
    /// The guest added this number of pages, at least one.
    Added(u32),
    /// It added none, and may add some later.
    Failed,
    /// It added none, and never will.
    Refused,
}

/// A message of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestMessage {
    /// It asks for a version: the number, and whether it is the last that the guest knows.
    Version {
        /// The version. `None`: this device does not support it.
        version: Option<Version>,
        /// Whether the guest gives up if this version is refused.
        is_last: bool,
    },
    /// Its capabilities.
    Capabilities {
        /// Whether it has a balloon.
        balloon: bool,
        /// Whether memory can be added.
        hot_add: bool,
        /// The alignment of added memory is 2 to this power in MiB.
        alignment: u8,
    },
    /// Its memory pressure.
    Status(Pressure),
    /// Pages that it gives.
    Ballooned {
        /// The pages.
        ranges: Vec<PageRange>,
        /// Whether more messages for the same request follow.
        more: bool,
    },
    /// It has taken all pages of an unballoon request.
    Unballooned,
    /// The answer to a hot add.
    HotAdded(HotAddOutcome),
}

/// The cause for ignoring a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Rejected {
    /// The message is shorter than its type demands, or its size is not that of the packet.
    #[error("a message of type {kind} has {bytes} bytes")]
    Size {
        /// The type; 0 if the message has none.
        kind: u16,
        /// Bytes of the packet.
        bytes: usize,
    },
    /// Its ranges do not fit it.
    #[error("{count} ranges are in a message of {bytes} bytes")]
    Ranges {
        /// The announced number of ranges.
        count: u32,
        /// Bytes of the packet.
        bytes: usize,
    },
    /// The type is unknown, or a host's.
    #[error("no guest sends messages of type {0}")]
    Kind(u16),
    /// The message does not fit the state of the protocol.
    #[error("a {0} comes out of order")]
    Order(&'static str),
    /// The host has not asked for it.
    #[error("a {0} answers no request")]
    NotAsked(&'static str),
    /// The guest supports no version that this device supports.
    #[error("the guest has no version that this device supports")]
    NoVersion,
}

impl GuestMessage {
    /// Parses a packet. Returns the message and its transaction number.
    ///
    /// # Errors
    /// [`Rejected`]: its form is wrong.
    pub fn parse(packet: &[u8]) -> Result<(Self, u32), Rejected> {
        let wrong_size = |kind| Rejected::Size { kind, bytes: packet.len() };
        let (header, body) = Header::read_from_prefix(packet).map_err(|_| wrong_size(0))?;
        let kind = header.kind.get();
        // A packet is padded to a multiple of 8 bytes.
        let size = usize::from(header.size.get());
        if size.next_multiple_of(8) != packet.len().next_multiple_of(8) {
            return Err(wrong_size(kind));
        }
        let body = body.get(..size.saturating_sub(HEADER)).ok_or(wrong_size(kind))?;
        let word = |index: usize| {
            let bytes = body.get(index * 4..)?.first_chunk()?;
            Some(u32::from_le_bytes(*bytes))
        };
        let word = |index: usize| word(index).ok_or(wrong_size(kind));
        let message = match kind {
            kind::VERSION_REQUEST => {
                Self::Version { version: Version::from_word(word(0)?), is_last: word(1)? & 1 != 0 }
            }
            kind::CAPABILITIES => {
                let (capabilities, _) =
                    Capabilities::read_from_prefix(body).map_err(|_| wrong_size(kind))?;
                let [bits, ..] = capabilities.bits.get().to_le_bytes();
                Self::Capabilities {
                    balloon: bits & 1 != 0,
                    hot_add: bits & 2 != 0,
                    alignment: bits >> 2 & 0xF,
                }
            }
            kind::STATUS => {
                let (status, _) =
                    StatusBody::read_from_prefix(body).map_err(|_| wrong_size(kind))?;
                Self::Status(Pressure {
                    available: status.available.get(),
                    committed: status.committed.get(),
                })
            }
            kind::BALLOON_RESPONSE => {
                let bits = word(1)?;
                let ranges = ranges(body, bits >> 1, packet.len())?;
                Self::Ballooned { ranges, more: bits & 1 != 0 }
            }
            kind::UNBALLOON_RESPONSE => Self::Unballooned,
            kind::HOT_ADD_RESPONSE => Self::HotAdded(match (word(0)?, word(1)?) {
                (0, 0) => HotAddOutcome::Failed,
                (0, _) => HotAddOutcome::Refused,
                (pages, _) => HotAddOutcome::Added(pages),
            }),
            _ => return Err(Rejected::Kind(kind)),
        };
        Ok((message, header.transaction.get()))
    }
}

/// Returns the `count` ranges after the first 8 bytes of `body`.
fn ranges(body: &[u8], count: u32, bytes: usize) -> Result<Vec<PageRange>, Rejected> {
    let wrong = Rejected::Ranges { count, bytes };
    let words = body.get(BEFORE_RANGES - HEADER..).ok_or(wrong)?;
    let (words, _) = words.as_chunks::<8>();
    let words = usize::try_from(count).ok().and_then(|count| words.get(..count)).ok_or(wrong)?;
    Ok(words.iter().map(|word| PageRange::from_word(u64::from_le_bytes(*word))).collect())
}

/// A message to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMessage<'a> {
    /// Whether a version is accepted.
    VersionResponse(bool),
    /// Accepts the capabilities.
    CapabilitiesResponse,
    /// Asks for this number of pages.
    BalloonRequest(u32),
    /// Gives pages back: at most [`MAX_RANGES`] ranges.
    UnballoonRequest {
        /// The pages.
        ranges: &'a [PageRange],
        /// Whether more messages of the same request follow.
        more: bool,
    },
    /// Adds memory.
    HotAddRequest(PageRange),
    /// Tells the largest number of pages that the guest can ever have.
    MaxPages(u64),
}

impl HostMessage<'_> {
    /// Returns the message as bytes.
    pub fn to_bytes(&self, transaction: u32) -> Vec<u8> {
        let words = |words: [u32; 2]| words.map(u32::to_le_bytes).concat();
        let (kind, body) = match self {
            Self::VersionResponse(accepted) => {
                (kind::VERSION_RESPONSE, u64::from(*accepted).to_le_bytes().to_vec())
            }
            Self::CapabilitiesResponse => {
                (kind::CAPABILITIES_RESPONSE, 1_u64.to_le_bytes().to_vec())
            }
            Self::BalloonRequest(pages) => (kind::BALLOON_REQUEST, words([*pages, 0])),
            Self::UnballoonRequest { ranges, more } => {
                let ranges = ranges.get(..MAX_RANGES).unwrap_or(ranges);
                let count = u32::try_from(ranges.len()).unwrap_or_default();
                let mut body = words([u32::from(*more), count]);
                ranges.iter().for_each(|range| body.extend(range.word().to_le_bytes()));
                (kind::UNBALLOON_REQUEST, body)
            }
            Self::HotAddRequest(range) => {
                (kind::HOT_ADD_REQUEST, range.word().to_le_bytes().to_vec())
            }
            Self::MaxPages(pages) => {
                let mut body = words([0, 16]);
                body.extend(words([MAX_PAGE_COUNT, 8]));
                body.extend(pages.to_le_bytes());
                (kind::INFORMATION, body)
            }
        };
        let size = u16::try_from(HEADER + body.len()).unwrap_or_default();
        let header =
            Header { kind: kind.into(), size: size.into(), transaction: transaction.into() };
        [header.as_bytes(), &body].concat()
    }
}
