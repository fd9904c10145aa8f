//! Packet layouts, without padding (storvsc sections 2 to 4).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Maximum bytes of a protocol packet, and the bytes of one since version 5.1. A larger one makes
/// Linux 6.1 and later lose its position in the ring (vmbus-core section 7.4).
pub const MAX_PACKET: usize = 64;

/// Bytes of a packet in versions before 5.1.
pub const V1_PACKET: usize = 48;

/// Bytes of a packet's header.
pub const HEADER: usize = 12;

/// Bytes of the CDB in a request.
pub const CDB_LEN: usize = 16;

/// Bytes of the sense field in a reply, which is larger than fixed-format sense.
pub const SENSE_LEN: usize = 20;

/// Operation codes (bytes 0 to 3 of a packet).
pub mod operation {
    /// The host has completed a request.
    pub const COMPLETE_IO: u32 = 1;
    /// A SCSI command.
    pub const EXECUTE_SRB: u32 = 3;
    /// Resets a logical unit.
    pub const RESET_LUN: u32 = 4;
    /// Resets the controller.
    pub const RESET_ADAPTER: u32 = 5;
    /// Resets the controller's bus.
    pub const RESET_BUS: u32 = 6;
    /// The first step of initialisation.
    pub const BEGIN_INITIALIZATION: u32 = 7;
    /// The last step of initialisation.
    pub const END_INITIALIZATION: u32 = 8;
    /// Offers a version.
    pub const QUERY_PROTOCOL_VERSION: u32 = 9;
    /// Asks for [`Properties`](super::Properties).
    pub const QUERY_PROPERTIES: u32 = 10;
    /// The host's set of logical units has changed.
    pub const ENUMERATE_BUS: u32 = 11;
    /// Asks for subchannels.
    pub const CREATE_SUB_CHANNELS: u32 = 13;
}

/// The header of every packet.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// One of [`operation`].
    pub operation: U32,
    /// Bits of [`flags`]. The host ignores them, and sends 0.
    pub flags: U32,
    /// NTSTATUS in replies; ignored from the guest.
    pub status: U32,
}

/// Bits of [`Header::flags`].
pub mod flags {
    /// A completion is requested.
    pub const REQUEST_COMPLETION: u32 = 1;
}

/// Payload of QUERY_PROTOCOL_VERSION.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct VersionPayload {
    /// The number of a [`Version`](crate::Version).
    pub version: U16,
    /// The revision of the driver; hosts ignore it.
    pub revision: U16,
}

/// Payload of the reply to QUERY_PROPERTIES.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Properties {
    /// 0.
    pub reserved0: U32,
    /// Maximum number of subchannels.
    pub max_channel_count: U16,
    /// 0.
    pub reserved1: U16,
    /// Bits of the host's abilities.
    pub flags: U32,
    /// Maximum bytes of the data of one request.
    pub max_transfer_bytes: U32,
    /// 0.
    pub reserved2: U64,
}

impl Properties {
    /// Bit of [`Properties::flags`]: subchannels are supported.
    pub const SUPPORTS_MULTI_CHANNEL: u32 = 1;
}

/// Payload of EXECUTE_SRB and of its completion: the part that all versions share.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ScsiRequest {
    /// Bytes of this part and of [`ScsiExtension`], without the header.
    pub length: U16,
    /// In completions, a status of [`srb`](crate::srb).
    pub srb_status: u8,
    /// In completions, a status of [`scsi`](crate::scsi).
    pub scsi_status: u8,
    /// The controller's number, which hosts ignore.
    pub port_number: u8,
    /// Bus.
    pub path_id: u8,
    /// Target.
    pub target_id: u8,
    /// Logical unit.
    pub lun: u8,
    /// Valid bytes of the CDB.
    pub cdb_length: u8,
    /// In completions, valid bytes of the sense data; in requests, the bytes that are wanted.
    pub sense_info_length: u8,
    /// One of [`direction`].
    pub data_in: u8,
    /// 0.
    pub properties: u8,
    /// Bytes of data to move, and in completions the bytes that were moved.
    pub data_transfer_length: U32,
    /// The CDB in the first 16 bytes, or sense data.
    pub cdb_or_sense: [u8; SENSE_LEN],
}

/// Values of [`ScsiRequest::data_in`].
pub mod direction {
    /// Data goes to the device.
    pub const TO_DEVICE: u8 = 0;
    /// Data comes from the device.
    pub const FROM_DEVICE: u8 = 1;
    /// There is no data.
    pub const NONE: u8 = 2;
}

/// The part of EXECUTE_SRB that version 5.1 has added. Hosts ignore it.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ScsiExtension {
    /// 0.
    pub reserved: U16,
    /// The tag of a tagged command; 0xFF: none.
    pub queue_tag: u8,
    /// The message of a tagged command, as in SCSI.
    pub queue_action: u8,
    /// Flags of the Windows storage port driver.
    pub srb_flags: U32,
    /// The guest's time limit in seconds.
    pub time_out_value: U32,
    /// The guest's order of requests.
    pub queue_sort_key: U32,
}

/// EXECUTE_SRB as a whole.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ExecuteSrb {
    /// The header.
    pub header: Header,
    /// The part that all versions share.
    pub request: ScsiRequest,
    /// The rest, since version 5.1.
    pub extension: ScsiExtension,
}

const _: () = assert!(size_of::<Header>() == HEADER);
const _: () = assert!(size_of::<ScsiRequest>() == 0x24);
const _: () = assert!(size_of::<Properties>() == 24);
const _: () = assert!(size_of::<ExecuteSrb>() == MAX_PACKET);
