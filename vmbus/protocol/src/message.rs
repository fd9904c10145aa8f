//! Channel messages: one table of all of them, and every body (vmbus-core section 4).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::guid::Guid;
use crate::limits::MAX_OFFER_USER_DATA;
use crate::offer::VMBUS_SINT;
use crate::version::Version;

/// Bytes of the header before every body: u32 type, u32 reserved.
pub const HEADER_SIZE: usize = 8;

/// The sender of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Host to guest.
    ToGuest,
    /// Guest to host.
    ToHost,
}

macro_rules! message_types {
    ($(
        $(#[$doc:meta])*
        $name:ident = $number:literal, $direction:ident, $size:literal, $since:ident;
    )*) => {
        /// Message types. The comment of each says its direction, its least size with header, and
        /// the version that brought it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum MessageType { $($(#[$doc])* $name,)* }

        impl MessageType {
            /// All of them, by number.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u32 {
                match self { $(Self::$name => $number,)* }
            }

            /// The type with this number.
            #[must_use]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// Its sender.
            #[must_use]
            pub const fn direction(self) -> Direction {
                match self { $(Self::$name => Direction::$direction,)* }
            }

            /// Least number of bytes, header included.
            #[must_use]
            pub const fn min_size(self) -> usize {
                match self { $(Self::$name => $size,)* }
            }

            /// The first version that has it.
            #[must_use]
            pub const fn since(self) -> Version {
                match self { $(Self::$name => Version::$since,)* }
            }
        }
    };
}

message_types! {
    /// H→G, 196 bytes: a channel exists.
    OfferChannel = 1, ToGuest, 196, V2_4;
    /// H→G, 12 bytes: the channel goes away.
    RescindChannelOffer = 2, ToGuest, 12, V2_4;
    /// G→H, 8 bytes: send the offers.
    RequestOffers = 3, ToHost, 8, V2_4;
    /// H→G, 8 bytes: all boot-time offers were sent.
    AllOffersDelivered = 4, ToGuest, 8, V2_4;
    /// G→H, 148 bytes.
    OpenChannel = 5, ToHost, 148, V2_4;
    /// H→G, 20 bytes.
    OpenChannelResult = 6, ToGuest, 20, V2_4;
    /// G→H, 12 bytes.
    CloseChannel = 7, ToHost, 12, V2_4;
    /// G→H, 20 bytes and range data.
    GpadlHeader = 8, ToHost, 20, V2_4;
    /// G→H, 16 bytes and range data.
    GpadlBody = 9, ToHost, 16, V2_4;
    /// H→G, 20 bytes.
    GpadlCreated = 10, ToGuest, 20, V2_4;
    /// G→H, 16 bytes.
    GpadlTeardown = 11, ToHost, 16, V2_4;
    /// H→G, 12 bytes.
    GpadlTorndown = 12, ToGuest, 12, V2_4;
    /// G→H, 12 bytes.
    RelidReleased = 13, ToHost, 12, V2_4;
    /// G→H, 40 bytes.
    InitiateContact = 14, ToHost, 40, V2_4;
    /// H→G, 16 bytes.
    VersionResponse = 15, ToGuest, 16, V2_4;
    /// G→H, 8 bytes.
    Unload = 16, ToHost, 8, V2_4;
    /// H→G, 8 bytes.
    UnloadResponse = 17, ToGuest, 8, V2_4;
    /// G→H, 28 bytes.
    OpenReservedChannel = 18, ToHost, 28, V4_0;
    /// G→H, 20 bytes.
    CloseReservedChannel = 19, ToHost, 20, V4_0;
    /// H→G, 12 bytes.
    CloseReservedResponse = 20, ToGuest, 12, V4_0;
    /// G→H, 40 bytes.
    TlConnectRequest = 21, ToHost, 40, V4_0;
    /// G→H, 16 bytes.
    ModifyChannel = 22, ToHost, 16, V4_1;
    /// H→G, 44 bytes.
    TlConnectResult = 23, ToGuest, 44, V4_1;
    /// H→G, 16 bytes.
    ModifyChannelResponse = 24, ToGuest, 16, V5_3;
    /// G→H, 24 bytes, under feature 0x4.
    ModifyConnection = 25, ToHost, 24, V6_0;
    /// H→G, 9 bytes, under feature 0x4.
    ModifyConnectionResponse = 26, ToGuest, 9, V6_0;
    /// G→H, 8 bytes, under feature 0x20.
    Pause = 27, ToHost, 8, V6_0;
    /// H→G, 8 bytes, under feature 0x20.
    PauseResponse = 28, ToGuest, 8, V6_0;
    /// G→H, 8 bytes, under feature 0x20.
    Resume = 29, ToHost, 8, V6_0;
}

macro_rules! bodies {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
            #[repr(C)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        )*
    };
}

bodies! {
    /// OFFERCHANNEL (1), section 4.1.
    OfferChannel {
        /// Device class.
        class: Guid,
        /// Device instance: unique over all primary offers of the VM.
        instance: Guid,
        /// 0.
        reserved: [u8; 16],
        /// [`crate::offer::OfferFlags`].
        flags: U16,
        /// MMIO that the device needs, MiB.
        mmio_megabytes: U16,
        /// Class-specific.
        user_defined: [u8; MAX_OFFER_USER_DATA],
        /// 0 for a primary, from 1 for subchannels.
        sub_channel_index: U16,
        /// Optional MMIO, MiB.
        mmio_megabytes_optional: U16,
        /// 1..=2047.
        relid: U32,
        /// 255 when none.
        monitor_id: u8,
        /// Bit 0: signals go through the monitor page.
        monitor_allocated: u8,
        /// Bit 0: the channel has its own event flag.
        dedicated_interrupt: U16,
        /// For HvSignalEvent.
        connection_id: U32,
    }
    /// RESCIND_CHANNELOFFER (2), CLOSECHANNEL (7), RELID_RELEASED (13), CLOSE_RESERVED_RESPONSE
    /// (20).
    ChannelOnly {
        /// The channel.
        relid: U32,
    }
    /// OPENCHANNEL (5), the 148 bytes that every version has.
    OpenChannel {
        /// The channel.
        relid: U32,
        /// Echoed in the result.
        open_id: U32,
        /// GPADL of both rings.
        ring_gpadl: U32,
        /// VP index that gets the events; `u32::MAX` for none.
        target_vp: U32,
        /// Pages from the start of the GPADL to the host→guest ring.
        downstream_page_offset: U32,
        /// Class-specific.
        user_data: [u8; 120],
    }
    /// OPENCHANNEL_RESULT (6).
    OpenChannelResult {
        /// The channel.
        relid: U32,
        /// From the request.
        open_id: U32,
        /// 0 is success.
        status: U32,
    }
    /// GPADL_HEADER (8); range data follows.
    GpadlHeader {
        /// The channel.
        relid: U32,
        /// Handle chosen by the guest.
        gpadl: U32,
        /// Bytes of range data in this message and all bodies.
        range_buflen: U16,
        /// Ranges.
        range_count: U16,
    }
    /// GPADL_BODY (9); range data follows.
    GpadlBody {
        /// Not reliable: Linux sends 0 in every one.
        message_number: U32,
        /// Handle of the header.
        gpadl: U32,
    }
    /// GPADL_CREATED (10).
    GpadlCreated {
        /// From the header.
        relid: U32,
        /// From the header.
        gpadl: U32,
        /// 0 is success.
        status: U32,
    }
    /// GPADL_TEARDOWN (11).
    GpadlTeardown {
        /// The channel.
        relid: U32,
        /// The handle.
        gpadl: U32,
    }
    /// GPADL_TORNDOWN (12).
    GpadlTorndown {
        /// The handle.
        gpadl: U32,
    }
    /// INITIATE_CONTACT (14), the 40 bytes that every version has, section 3.1.
    InitiateContact {
        /// [`Version`] as a word.
        version: U32,
        /// VP index for host→guest messages from 3.0 on.
        target_vp: U32,
        /// Before 5.0 the interrupt page; from 5.0 on byte 0 is the SINT, byte 1 the VTL, bytes
        /// 4..8 the 6.0 feature flags.
        target_info: [u8; 8],
        /// Parent→child monitor page, guest address.
        monitor_page1: U64,
        /// Child→parent monitor page, guest address.
        monitor_page2: U64,
    }
    /// VERSION_RESPONSE (15), the 16 bytes that every version has, section 3.2.
    VersionResponse {
        /// 0 or 1.
        supported: u8,
        /// 0 good, 1 low resources, 2 failed.
        connection_state: u8,
        /// 0.
        reserved: U16,
        /// Before 5.0 the selected version, from 5.0 on the message connection id.
        version_or_connection_id: U32,
    }
    /// VERSION_RESPONSE (15) of an accepted 6.0.
    VersionResponse6 {
        /// The common part.
        common: VersionResponse,
        /// Requested flags that the host has.
        features: U32,
    }
    /// OPEN_RESERVED_CHANNEL (18).
    OpenReservedChannel {
        /// The channel.
        relid: U32,
        /// VP of the answer.
        target_vp: U32,
        /// SINT of the answer.
        target_sint: U32,
        /// GPADL of both rings.
        ring_gpadl: U32,
        /// Pages from the start of the GPADL to the host→guest ring.
        downstream_page_offset: U32,
    }
    /// CLOSE_RESERVED_CHANNEL (19).
    CloseReservedChannel {
        /// The channel.
        relid: U32,
        /// VP of the answer.
        target_vp: U32,
        /// SINT of the answer.
        target_sint: U32,
    }
    /// TL_CONNECT_REQUEST (21), the 40 bytes that every version has.
    TlConnectRequest {
        /// The calling end.
        endpoint: Guid,
        /// The end that is called.
        service: Guid,
    }
    /// MODIFYCHANNEL (22).
    ModifyChannel {
        /// The channel.
        relid: U32,
        /// New VP index.
        target_vp: U32,
    }
    /// TL_CONNECT_RESULT (23).
    TlConnectResult {
        /// From the request.
        endpoint: Guid,
        /// From the request.
        service: Guid,
        /// NTSTATUS.
        status: U32,
    }
    /// MODIFYCHANNEL_RESPONSE (24).
    ModifyChannelResponse {
        /// The channel.
        relid: U32,
        /// 0 is success.
        status: U32,
    }
}

impl InitiateContact {
    /// Returns the contact of a guest without monitor pages that takes its messages at SINT 2 of
    /// VP `target_vp`. `version`: [`Version::word`], or another word.
    #[must_use]
    pub fn new(version: u32, target_vp: u32) -> Self {
        Self {
            version: U32::new(version),
            target_vp: U32::new(target_vp),
            target_info: [VMBUS_SINT, 0, 0, 0, 0, 0, 0, 0],
            monitor_page1: U64::ZERO,
            monitor_page2: U64::ZERO,
        }
    }
}

/// A message from the guest, parsed once from a private copy. Trailing bytes and the reserved
/// header word are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestMessage<'a> {
    /// REQUESTOFFERS.
    RequestOffers,
    /// OPENCHANNEL.
    OpenChannel(&'a OpenChannel),
    /// CLOSECHANNEL of a relid.
    CloseChannel(u32),
    /// GPADL_HEADER and the range data it carries.
    GpadlHeader(&'a GpadlHeader, &'a [u8]),
    /// GPADL_BODY's handle and range data.
    GpadlBody(u32, &'a [u8]),
    /// GPADL_TEARDOWN.
    GpadlTeardown(&'a GpadlTeardown),
    /// RELID_RELEASED of a relid.
    RelidReleased(u32),
    /// INITIATE_CONTACT.
    InitiateContact(&'a InitiateContact),
    /// UNLOAD.
    Unload,
    /// OPEN_RESERVED_CHANNEL.
    OpenReservedChannel(&'a OpenReservedChannel),
    /// CLOSE_RESERVED_CHANNEL.
    CloseReservedChannel(&'a CloseReservedChannel),
    /// TL_CONNECT_REQUEST.
    TlConnectRequest(&'a TlConnectRequest),
    /// MODIFYCHANNEL.
    ModifyChannel(&'a ModifyChannel),
    /// MODIFY_CONNECTION: only under a feature that this host never grants.
    ModifyConnection,
    /// PAUSE: likewise.
    Pause,
    /// RESUME: likewise.
    Resume,
}

/// Why a message from the guest cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Shorter than a header, or than its type's least size.
    Short {
        /// The type, when at least that came.
        kind: Option<MessageType>,
        /// Bytes that came.
        len: usize,
    },
    /// A number outside the table.
    Unknown(u32),
    /// A type that only hosts send.
    WrongDirection(MessageType),
}

impl<'a> GuestMessage<'a> {
    /// Parses a message posted by the guest, header included.
    ///
    /// # Errors
    /// [`ParseError`]; the caller ignores such a message.
    pub fn parse(message: &'a [u8]) -> Result<Self, ParseError> {
        let len = message.len();
        let short = |kind| ParseError::Short { kind, len };
        let (header, body) = message.split_first_chunk::<HEADER_SIZE>().ok_or(short(None))?;
        let [t0, t1, t2, t3, ..] = *header;
        let number = u32::from_le_bytes([t0, t1, t2, t3]);
        let kind = MessageType::from_number(number).ok_or(ParseError::Unknown(number))?;
        if len < kind.min_size() {
            return Err(short(Some(kind)));
        }
        let error = short(Some(kind));
        Ok(match kind {
            MessageType::RequestOffers => Self::RequestOffers,
            MessageType::OpenChannel => Self::OpenChannel(fixed(body, error)?.0),
            MessageType::CloseChannel => {
                Self::CloseChannel(fixed::<ChannelOnly>(body, error)?.0.relid.get())
            }
            MessageType::GpadlHeader => {
                let (header, data) = fixed(body, error)?;
                Self::GpadlHeader(header, data)
            }
            MessageType::GpadlBody => {
                let (header, data) = fixed::<GpadlBody>(body, error)?;
                Self::GpadlBody(header.gpadl.get(), data)
            }
            MessageType::GpadlTeardown => Self::GpadlTeardown(fixed(body, error)?.0),
            MessageType::RelidReleased => {
                Self::RelidReleased(fixed::<ChannelOnly>(body, error)?.0.relid.get())
            }
            MessageType::InitiateContact => Self::InitiateContact(fixed(body, error)?.0),
            MessageType::Unload => Self::Unload,
            MessageType::OpenReservedChannel => Self::OpenReservedChannel(fixed(body, error)?.0),
            MessageType::CloseReservedChannel => Self::CloseReservedChannel(fixed(body, error)?.0),
            MessageType::TlConnectRequest => Self::TlConnectRequest(fixed(body, error)?.0),
            MessageType::ModifyChannel => Self::ModifyChannel(fixed(body, error)?.0),
            MessageType::ModifyConnection => Self::ModifyConnection,
            MessageType::Pause => Self::Pause,
            MessageType::Resume => Self::Resume,
            MessageType::OfferChannel
            | MessageType::RescindChannelOffer
            | MessageType::AllOffersDelivered
            | MessageType::OpenChannelResult
            | MessageType::GpadlCreated
            | MessageType::GpadlTorndown
            | MessageType::VersionResponse
            | MessageType::UnloadResponse
            | MessageType::CloseReservedResponse
            | MessageType::TlConnectResult
            | MessageType::ModifyChannelResponse
            | MessageType::ModifyConnectionResponse
            | MessageType::PauseResponse => return Err(ParseError::WrongDirection(kind)),
        })
    }
}

/// Returns the structure at the front of `body`, and the bytes that follow it.
fn fixed<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    body: &[u8],
    error: ParseError,
) -> Result<(&T, &[u8]), ParseError> {
    T::ref_from_prefix(body).map_err(|_| error)
}
