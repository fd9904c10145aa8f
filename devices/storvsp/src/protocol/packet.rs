//! Packet layouts, little-endian, without padding (spec storvsc sections 2 to 4).

use super::limits::MAX_PACKET;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Operation codes (bytes 0 to 3 of a packet).
pub(super) mod operation {
    pub(in super::super) const COMPLETE_IO: u32 = 1;
    pub(in super::super) const EXECUTE_SRB: u32 = 3;
    pub(in super::super) const RESET_LUN: u32 = 4;
    pub(in super::super) const RESET_ADAPTER: u32 = 5;
    pub(in super::super) const RESET_BUS: u32 = 6;
    pub(in super::super) const BEGIN_INITIALIZATION: u32 = 7;
    pub(in super::super) const END_INITIALIZATION: u32 = 8;
    pub(in super::super) const QUERY_PROTOCOL_VERSION: u32 = 9;
    pub(in super::super) const QUERY_PROPERTIES: u32 = 10;
    pub(in super::super) const ENUMERATE_BUS: u32 = 11;
    pub(in super::super) const CREATE_SUB_CHANNELS: u32 = 13;
}

/// The header of every packet.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub(super) operation: U32,
    /// Ignored from the guest, 0 from the host.
    pub(super) flags: U32,
    /// NTSTATUS in replies; ignored from the guest.
    pub(super) status: U32,
}

/// Payload of QUERY_PROTOCOL_VERSION.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct VersionPayload {
    pub(super) version: U16,
    pub(super) revision: U16,
}

/// Payload of the reply to QUERY_PROPERTIES.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Properties {
    pub(super) reserved0: U32,
    pub(super) max_channel_count: U16,
    pub(super) reserved1: U16,
    /// Bit 0: subchannels are supported.
    pub(super) flags: U32,
    pub(super) max_transfer_bytes: U32,
    pub(super) reserved2: U64,
}

/// [`Properties::flags`]: subchannels are supported.
pub(super) const SUPPORTS_MULTI_CHANNEL: u32 = 1;

/// Bytes of CDB in a request.
pub(super) const CDB_LEN: usize = 16;
/// Bytes of the sense field in a reply, which is larger than fixed-format sense.
pub(super) const SENSE_LEN: usize = 20;

/// Payload of EXECUTE_SRB and of its completion: the part that all versions share.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ScsiRequest {
    pub(super) length: U16,
    pub(super) srb_status: u8,
    pub(super) scsi_status: u8,
    pub(super) port_number: u8,
    pub(super) path_id: u8,
    pub(super) target_id: u8,
    pub(super) lun: u8,
    pub(super) cdb_length: u8,
    pub(super) sense_info_length: u8,
    pub(super) data_in: u8,
    pub(super) properties: u8,
    pub(super) data_transfer_length: U32,
    /// The CDB in the first 16 bytes, or sense data.
    pub(super) cdb_or_sense: [u8; SENSE_LEN],
}

/// EXECUTE_SRB as a whole.
#[derive(Clone, Copy, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ExecuteSrb {
    pub(super) header: Header,
    pub(super) request: ScsiRequest,
    pub(super) reserved: [u8; MAX_PACKET - size_of::<Header>() - size_of::<ScsiRequest>()],
}

/// [`ScsiRequest::data_in`]: to the device.
pub(super) const DATA_OUT: u8 = 0;
/// [`ScsiRequest::data_in`]: from the device.
pub(super) const DATA_IN: u8 = 1;

const _: () = assert!(size_of::<Header>() == super::limits::HEADER);
const _: () = assert!(size_of::<ScsiRequest>() == 0x24);
const _: () = assert!(size_of::<Properties>() == 24);
