//! Errors of the devices.

use thiserror::Error;
use vmbus_client::Error;

/// The reason that a request has no outcome.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum StorageError {
    /// The channel failed: the host removed the controller, or does not answer.
    #[error("the channel failed: {0}")]
    Channel(#[from] Error),
    /// The host refused a step of the initialisation.
    #[error("the host refused storvsc operation {operation}: status {status:#010x}")]
    Refused {
        /// The operation (storvsc section 2).
        operation: u32,
        /// NTSTATUS of the host.
        status: u32,
    },
    /// The host supports none of the storvsc versions that the driver supports.
    #[error("the host supports no storvsc version from 2.0 to 6.2")]
    NoVersion,
    /// The host broke the storvsc protocol.
    #[error("the host sent an invalid storvsc packet")]
    Protocol,
    /// The request moves more bytes than one request may.
    #[error("a transfer of {bytes} bytes exceeds the limit of {limit} bytes")]
    TooLong {
        /// Bytes of the request.
        bytes: u32,
        /// The limit in force.
        limit: u32,
    },
    /// The CDB has no bytes, or more than 16.
    #[error("a CDB of {0} bytes; 1 to 16 are possible")]
    Cdb(usize),
    /// The request was not completed in time, and the channel was opened again.
    #[error("the request timed out")]
    TimedOut,
    /// There is no memory for the driver's own commands.
    #[error("no memory")]
    NoMemory,
}

/// The reason that the video device or the keyboard cannot be used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DisplayError {
    /// The channel failed: the host removed the device, or does not answer.
    #[error("the channel failed: {0}")]
    Channel(#[from] Error),
    /// The host supports another version of the protocol only.
    #[error("the host refused the version")]
    Version,
    /// The host did not answer in time.
    #[error("the host did not answer")]
    TimedOut,
    /// No resolution of the host's fits into video memory.
    #[error("the host offers no resolution")]
    NoMode,
    /// There is no such mode.
    #[error("there is no mode {0}")]
    Mode(usize),
}
