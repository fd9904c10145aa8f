//! storvsc packets (storvsc sections 2 to 4), little-endian and without padding.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a packet, in all versions: a host that knows shorter ones ignores the rest.
pub(crate) const PACKET_BYTES: usize = 64;
/// Bytes of the shortest answer to a request.
pub(crate) const MIN_ANSWER_BYTES: usize = 48;
/// Maximum bytes of a CDB.
pub(crate) const MAX_CDB_BYTES: usize = 16;
/// Bytes of the sense field.
pub(crate) const SENSE_BYTES: usize = 20;

/// storvsc versions, newest first.
pub(crate) const VERSIONS: [u16; 5] = [0x0602, 0x0600, 0x0501, 0x0402, 0x0200];

pub(crate) mod operation {
    pub(crate) const COMPLETE_IO: u32 = 1;
    pub(crate) const EXECUTE_SRB: u32 = 3;
    pub(crate) const BEGIN_INITIALIZATION: u32 = 7;
    pub(crate) const END_INITIALIZATION: u32 = 8;
    pub(crate) const QUERY_PROTOCOL_VERSION: u32 = 9;
    pub(crate) const QUERY_PROPERTIES: u32 = 10;
}

/// `Header::flags`: a completion is requested.
pub(crate) const FLAG_COMPLETION: u32 = 1;

/// `ScsiRequest::data_in`.
pub(crate) mod direction {
    pub(crate) const TO_DEVICE: u8 = 0;
    pub(crate) const FROM_DEVICE: u8 = 1;
    pub(crate) const NONE: u8 = 2;
}

/// The header of every packet.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) operation: U32,
    pub(crate) flags: U32,
    /// NTSTATUS in answers.
    pub(crate) status: U32,
}

/// EXECUTE_SRB and its answer.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct ExecuteSrb {
    pub(crate) header: Header,
    pub(crate) length: U16,
    pub(crate) srb_status: u8,
    pub(crate) scsi_status: u8,
    pub(crate) port_number: u8,
    pub(crate) path_id: u8,
    pub(crate) target_id: u8,
    pub(crate) lun: u8,
    pub(crate) cdb_length: u8,
    pub(crate) sense_info_length: u8,
    pub(crate) data_in: u8,
    pub(crate) reserved: u8,
    pub(crate) data_transfer_length: U32,
    /// The CDB in the first 16 bytes, or sense data.
    pub(crate) cdb_or_sense: [u8; SENSE_BYTES],
    pub(crate) reserved2: U16,
    pub(crate) queue_tag: u8,
    pub(crate) queue_action: u8,
    pub(crate) srb_flags: U32,
    pub(crate) time_out_value: U32,
    pub(crate) queue_sort_key: U32,
}

const _: () = assert!(size_of::<ExecuteSrb>() == PACKET_BYTES);

/// A packet of the initialisation.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Control {
    pub(crate) header: Header,
    /// QUERY_PROTOCOL_VERSION: the version.
    pub(crate) version: U16,
    pub(crate) revision: U16,
    reserved: [u8; 8],
    /// Answer to QUERY_PROPERTIES: maximum bytes of one request's data.
    pub(crate) max_transfer_bytes: U32,
    reserved2: [u8; 36],
}

const _: () = assert!(size_of::<Control>() == PACKET_BYTES);

impl Control {
    pub(crate) fn new(operation: u32, version: u16) -> Self {
        let header =
            Header { operation: operation.into(), flags: FLAG_COMPLETION.into(), status: 0.into() };
        let version = version.into();
        Self {
            header,
            version,
            revision: 0.into(),
            reserved: [0; _],
            max_transfer_bytes: 0.into(),
            reserved2: [0; _],
        }
    }
}
