//! Operation codes (byte 0 of a CDB) that this crate uses.

pub(super) const TEST_UNIT_READY: u8 = 0x00;
pub(super) const REQUEST_SENSE: u8 = 0x03;
pub(super) const READ_6: u8 = 0x08;
pub(super) const WRITE_6: u8 = 0x0A;
pub(super) const INQUIRY: u8 = 0x12;
pub(super) const MODE_SELECT_6: u8 = 0x15;
pub(super) const RESERVE_6: u8 = 0x16;
pub(super) const RELEASE_6: u8 = 0x17;
pub(super) const MODE_SENSE_6: u8 = 0x1A;
pub(super) const START_STOP_UNIT: u8 = 0x1B;
pub(super) const SEND_DIAGNOSTIC: u8 = 0x1D;
pub(super) const PREVENT_ALLOW: u8 = 0x1E;
pub(super) const READ_CAPACITY_10: u8 = 0x25;
pub(super) const READ_10: u8 = 0x28;
pub(super) const WRITE_10: u8 = 0x2A;
pub(super) const WRITE_AND_VERIFY_10: u8 = 0x2E;
pub(super) const VERIFY_10: u8 = 0x2F;
pub(super) const SYNCHRONIZE_CACHE_10: u8 = 0x35;
pub(super) const WRITE_SAME_10: u8 = 0x41;
pub(super) const UNMAP: u8 = 0x42;
pub(super) const READ_TOC: u8 = 0x43;
pub(super) const GET_CONFIGURATION: u8 = 0x46;
pub(super) const GET_EVENT_STATUS: u8 = 0x4A;
pub(super) const READ_DISC_INFORMATION: u8 = 0x51;
pub(super) const READ_TRACK_INFORMATION: u8 = 0x52;
pub(super) const MODE_SELECT_10: u8 = 0x55;
pub(super) const RESERVE_10: u8 = 0x56;
pub(super) const RELEASE_10: u8 = 0x57;
pub(super) const MODE_SENSE_10: u8 = 0x5A;
pub(super) const READ_BUFFER_CAPACITY: u8 = 0x5C;
pub(super) const PERSISTENT_RESERVE_IN: u8 = 0x5E;
pub(super) const PERSISTENT_RESERVE_OUT: u8 = 0x5F;
pub(super) const READ_16: u8 = 0x88;
pub(super) const WRITE_16: u8 = 0x8A;
pub(super) const WRITE_AND_VERIFY_16: u8 = 0x8E;
pub(super) const VERIFY_16: u8 = 0x8F;
pub(super) const SYNCHRONIZE_CACHE_16: u8 = 0x91;
pub(super) const WRITE_SAME_16: u8 = 0x93;
pub(super) const SERVICE_ACTION_IN_16: u8 = 0x9E;
pub(super) const REPORT_LUNS: u8 = 0xA0;
pub(super) const READ_12: u8 = 0xA8;
pub(super) const WRITE_12: u8 = 0xAA;
pub(super) const GET_PERFORMANCE: u8 = 0xAC;
pub(super) const READ_DVD_STRUCTURE: u8 = 0xAD;
pub(super) const WRITE_AND_VERIFY_12: u8 = 0xAE;
pub(super) const VERIFY_12: u8 = 0xAF;
pub(super) const SET_STREAMING: u8 = 0xB6;
pub(super) const MECHANISM_STATUS: u8 = 0xBD;

/// The service action that makes SERVICE ACTION IN(16) a READ CAPACITY(16).
pub(super) const SA_READ_CAPACITY_16: u8 = 0x10;

/// The service action that makes SERVICE ACTION IN(16) a GET LBA STATUS.
pub(super) const SA_GET_LBA_STATUS: u8 = 0x12;

/// Returns the length of a CDB, by the group in the top three bits of its operation code. `None`:
/// the group has no fixed length.
pub(super) fn cdb_length(opcode: u8) -> Option<u8> {
    match opcode >> 5 {
        0 => Some(6),
        1 | 2 => Some(10),
        4 => Some(16),
        5 => Some(12),
        _ => None,
    }
}
