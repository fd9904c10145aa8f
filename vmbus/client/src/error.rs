//! Errors, and the NTSTATUS that a Windows caller gets for each.
//!
//! If the Windows documentation names the status, it is that one. If it does not (most GPADL
//! failures), it is the status for the invalid parameter, counted from 1 in the C prototype, with
//! the channel as the first.

use thiserror::Error;
use vmbus_protocol::offer::HvStatus;

use crate::status::NtStatus;

/// The error of a channel call.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The channel is not disabled, so it cannot be configured.
    #[error("the channel is not disabled")]
    NotDisabled,
    /// The call is not possible in the channel's state.
    #[error("not possible while the channel is {0}")]
    State(&'static str),
    /// The call is not possible in a callback of the same channel.
    #[error("not possible inside a callback of the channel")]
    InCallback,
    /// A parameter is invalid: its number in the C prototype (1 is the channel), and the reason.
    #[error("parameter {0}: {1}")]
    Parameter(u8, &'static str),
    /// A packet is longer than the channel's maximum, or than its ring takes.
    #[error("a packet of {bytes} bytes is too long for the channel: {limit} is the limit")]
    TooBig {
        /// Bytes of payload.
        bytes: usize,
        /// The limit in force.
        limit: usize,
    },
    /// External data exceeds the channel's configured limits.
    #[error("external data of {bytes} bytes in {pieces} pieces exceeds the channel's maximum")]
    ExternalData {
        /// Bytes described.
        bytes: u64,
        /// Pieces of the chain.
        pieces: usize,
    },
    /// The ring is full, and the caller did not want to wait.
    #[error("the packet did not fit the ring and was not queued")]
    Full,
    /// The answer is longer than the buffer for it.
    #[error("the completion has {0} bytes, more than the buffer for it")]
    AnswerTooLong(usize),
    /// Outstanding packets were not completed, so the channel cannot pause.
    #[error("{0} received packets were never completed")]
    Outstanding(u32),
    /// The call was cancelled: the channel was disabled, or the timeout has passed.
    #[error("cancelled")]
    Cancelled,
    /// The host rescinded the channel.
    #[error("the channel was rescinded")]
    Removed,
    /// The host refused.
    #[error("the host refused: {0}")]
    Host(NtStatus),
    /// The driver's opened callback refused.
    #[error("the driver refused the channel: {0}")]
    Driver(NtStatus),
    /// The host broke the channel's ring.
    #[error("the host broke the ring")]
    Protocol,
    /// No pages for rings, or the machine could not map them.
    #[error("no memory: {0}")]
    Memory(NtStatus),
    /// The host's message queue stayed full.
    #[error("the host takes no more messages")]
    Busy,
    /// HvPostMessage failed.
    #[error("HvPostMessage failed: {0:?}")]
    Post(HvStatus),
    /// The host supports none of the versions.
    #[error("the host speaks none of the versions that were tried")]
    NoVersion,
    /// The whole machine is idle, and the awaited event cannot come any more. A Windows caller
    /// would hang.
    #[error("no answer can come: the whole machine is idle")]
    Stalled,
}

impl Error {
    /// Returns the status that a Windows caller gets.
    #[must_use]
    pub const fn status(self) -> NtStatus {
        match self {
            Self::NotDisabled => NtStatus::INVALID_PARAMETER_1,
            Self::State(_) | Self::InCallback => NtStatus::INVALID_DEVICE_STATE,
            Self::Parameter(number, _) => parameter(number),
            Self::TooBig { .. } | Self::ExternalData { .. } => NtStatus::INVALID_BUFFER_SIZE,
            Self::Full => NtStatus::BUFFER_OVERFLOW,
            Self::AnswerTooLong(_) => NtStatus::BUFFER_TOO_SMALL,
            Self::Cancelled => NtStatus::CANCELLED,
            Self::Removed => NtStatus::DEVICE_REMOVED,
            Self::Host(status) | Self::Driver(status) | Self::Memory(status) => status,
            Self::Protocol => NtStatus::DEVICE_PROTOCOL_ERROR,
            Self::Busy => NtStatus::INSUFFICIENT_RESOURCES,
            Self::Post(_) => NtStatus::UNSUCCESSFUL,
            Self::NoVersion => NtStatus::REVISION_MISMATCH,
            Self::Stalled | Self::Outstanding(_) => NtStatus::IO_TIMEOUT,
        }
    }
}

/// The error of creating or deleting a GPADL. After a failed creation the handle does not exist,
/// and must not be deleted.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum GpadlError {
    /// The channel is not open: a GPADL is possible from the start of the opened callback to the
    /// end of the closed callback.
    #[error("the channel is not open")]
    Closed,
    /// A flag other than `READ_ONLY` is set.
    #[error("unknown flag bits {0:#x}")]
    Flags(u32),
    /// The selected part of the chain is empty.
    #[error("the buffer is empty")]
    Empty,
    /// The start is beyond the end of the chain.
    #[error("start offset {offset} lies beyond a chain of {total} bytes")]
    Offset {
        /// Start offset in bytes.
        offset: u64,
        /// Bytes of the chain.
        total: u64,
    },
    /// The end is beyond the end of the chain.
    #[error("{length} bytes from offset {offset} run beyond a chain of {total} bytes")]
    Length {
        /// Start offset in bytes.
        offset: u64,
        /// Requested bytes.
        length: u64,
        /// Bytes of the chain.
        total: u64,
    },
    /// The buffer is too large for one GPADL: `range_buflen` is 16 bits.
    /// [`crate::Channel::create_gpadls_from_mdl`] makes several.
    #[error(
        "{words} words of ranges and pages; one GPADL has at most {}",
        crate::handles::MAX_WORDS
    )]
    TooLarge {
        /// Number of words: one for each range, one for each page.
        words: usize,
    },
    /// The buffer could not be locked.
    #[error("the buffer could not be locked: {0}")]
    Lock(NtStatus),
    /// The host refused the GPADL.
    #[error("the host refused it: {0}")]
    Host(NtStatus),
    /// The channel has no such GPADL.
    #[error("the channel has no GPADL {0:#x}")]
    Unknown(u32),
    /// The connection failed.
    #[error(transparent)]
    Link(#[from] Error),
}

impl GpadlError {
    /// Returns the status that a Windows caller gets.
    #[must_use]
    pub const fn status(self) -> NtStatus {
        match self {
            Self::Closed => NtStatus::INVALID_DEVICE_STATE,
            Self::Flags(_) => NtStatus::INVALID_PARAMETER_2,
            Self::Empty => NtStatus::INVALID_BUFFER_SIZE,
            Self::Offset { .. } => NtStatus::INVALID_PARAMETER_4,
            Self::Length { .. } => NtStatus::INVALID_PARAMETER_5,
            Self::TooLarge { .. } => NtStatus::INSUFFICIENT_RESOURCES,
            Self::Lock(status) | Self::Host(status) => status,
            Self::Unknown(_) => NtStatus::INVALID_HANDLE,
            Self::Link(error) => error.status(),
        }
    }
}

const fn parameter(number: u8) -> NtStatus {
    match number {
        1 => NtStatus::INVALID_PARAMETER_1,
        2 => NtStatus::INVALID_PARAMETER_2,
        3 => NtStatus::INVALID_PARAMETER_3,
        4 => NtStatus::INVALID_PARAMETER_4,
        5 => NtStatus::INVALID_PARAMETER_5,
        6 => NtStatus::INVALID_PARAMETER_6,
        7 => NtStatus::INVALID_PARAMETER_7,
        _ => NtStatus::INVALID_PARAMETER,
    }
}
