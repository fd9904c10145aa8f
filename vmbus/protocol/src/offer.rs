//! Offer flags and other small words of the control protocol.

use bitflags::bitflags;

bitflags! {
    /// `chn_flags` of an offer (vmbus-core 4.1).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct OfferFlags: u16 {
        /// Windows exposes a device interface.
        const ENUMERATE_DEVICE_INTERFACE = 0x0001;
        /// `user_defined` carries pipe parameters.
        const NAMED_PIPE_MODE = 0x0010;
        /// To the same partition; not for VMMs.
        const LOOPBACK_OFFER = 0x0100;
        /// Informational.
        const REQUEST_MONITORED_NOTIFICATION = 0x0400;
        /// A hvsock channel.
        const TLNPI_PROVIDER = 0x2000;
    }
}

/// `target_vp` of a channel that polls: it never gets an event.
pub const NO_INTERRUPT_VP: u32 = u32::MAX;

/// SINTs of a VP: SINT0 to SINT15 (vmbus-core 1.3).
pub const SINT_COUNT: u8 = 16;

/// The SINT of every VMBus guest known.
pub const VMBUS_SINT: u8 = 2;

/// SynIC message type of VMBus channel messages.
pub const VMBUS_MESSAGE_TYPE: u32 = 1;

/// Connection id of the message port for versions below 5.0.
pub const MESSAGE_CONNECTION_ID: u32 = 1;

/// Connection id of the message port for INITIATE_CONTACT from 5.0 on.
pub const MESSAGE_CONNECTION_ID_MULTICLIENT: u32 = 4;

/// Statuses in replies. Guests look only for 0.
pub mod status {
    /// Done.
    pub const SUCCESS: u32 = 0;
    /// NTSTATUS `STATUS_UNSUCCESSFUL`.
    pub const UNSUCCESSFUL: u32 = 0xC000_0001;
    /// NTSTATUS `STATUS_INVALID_PARAMETER`.
    pub const INVALID_PARAMETER: u32 = 0xC000_000D;
    /// NTSTATUS `STATUS_QUOTA_EXCEEDED`.
    pub const QUOTA_EXCEEDED: u32 = 0xC000_0044;
    /// NTSTATUS `STATUS_CONNECTION_REFUSED`: no listener (section 4.7).
    pub const CONNECTION_REFUSED: u32 = 0xC000_0236;
}

/// The status of HvPostMessage and HvSignalEvent: bits 15:0 of RAX (vmbus-core 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HvStatus {
    /// Taken.
    Success,
    /// No such hypercall.
    InvalidHypercallCode,
    /// Fast or rep bit set.
    InvalidHypercallInput,
    /// Input not 8-byte aligned, or across a page.
    InvalidAlignment,
    /// Message type or size.
    InvalidParameter,
    /// No such port.
    InvalidConnectionId,
    /// The queue is full: try again.
    InsufficientBuffers,
}

impl HvStatus {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Success => 0,
            Self::InvalidHypercallCode => 2,
            Self::InvalidHypercallInput => 3,
            Self::InvalidAlignment => 4,
            Self::InvalidParameter => 5,
            Self::InvalidConnectionId => 18,
            Self::InsufficientBuffers => 19,
        }
    }
}
