//! The outcome of a request, encoded so that both Linux and Windows interpret it correctly (spec
//! storvsc sections 4.1 and 4.2).

use super::reply::Reply;
use super::status::NtStatus;
use synthvm_scsi::{Cause, CheckCondition, Sense};
use synthvm_storvsc::{CDB_LEN, HEADER, SENSE_LEN, ScsiRequest, V1_PACKET, scsi, srb};

/// The outcome of one EXECUTE_SRB. It is small, as it may have to wait for space in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    packet_length: u8,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Good { bytes: u32 },
    Check(CheckCondition),
    Conflict,
    QueueFull,
    InvalidLun,
    Malformed,
}

impl Completion {
    pub(super) const fn good(packet_length: u8, bytes: u32) -> Self {
        Self { packet_length, outcome: Outcome::Good { bytes } }
    }

    pub(super) const fn check(packet_length: u8, condition: CheckCondition) -> Self {
        Self { packet_length, outcome: Outcome::Check(condition) }
    }

    pub(super) const fn invalid_lun(packet_length: u8) -> Self {
        Self { packet_length, outcome: Outcome::InvalidLun }
    }

    pub(super) const fn conflict(packet_length: u8) -> Self {
        Self { packet_length, outcome: Outcome::Conflict }
    }

    pub(super) const fn queue_full(packet_length: u8) -> Self {
        Self { packet_length, outcome: Outcome::QueueFull }
    }

    /// The packet was too short for a request.
    pub(super) const fn malformed(packet_length: u8) -> Self {
        Self { packet_length, outcome: Outcome::Malformed }
    }

    /// Returns true for success.
    pub fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Good { .. })
    }

    /// Returns the packet to send.
    pub fn reply(self) -> Reply {
        let length = self.packet_length.into();
        if self.outcome == Outcome::Malformed {
            return Reply::status(length, NtStatus::InvalidParameter);
        }
        let payload_size: u16 = if length > V1_PACKET { 0x34 } else { (V1_PACKET - HEADER) as u16 };
        let mut request = ScsiRequest {
            length: payload_size.into(),
            cdb_length: CDB_LEN as u8,
            sense_info_length: SENSE_LEN as u8,
            ..ScsiRequest::default()
        };
        let status = match self.outcome {
            Outcome::Good { bytes } => {
                request.srb_status = srb::SUCCESS;
                request.scsi_status = scsi::GOOD;
                request.data_transfer_length = bytes.into();
                NtStatus::Success
            }
            Outcome::Check(condition) => {
                let (srb_status, status) = match condition.cause {
                    Cause::Execution => (srb::ERROR, NtStatus::IoDeviceError),
                    Cause::InvalidRequest => (srb::INVALID_REQUEST, NtStatus::IoDeviceError),
                    Cause::DataOverrun => (srb::DATA_OVERRUN, NtStatus::BufferOverflow),
                };
                request.srb_status = srb_status | srb::AUTOSENSE_VALID;
                request.scsi_status = scsi::CHECK_CONDITION;
                request.cdb_or_sense[..Sense::FIXED_LEN]
                    .copy_from_slice(&condition.sense.to_fixed());
                status
            }
            // The next two SCSI statuses come without sense data.
            Outcome::Conflict => {
                request.srb_status = srb::ERROR;
                request.scsi_status = scsi::RESERVATION_CONFLICT;
                NtStatus::IoDeviceError
            }
            Outcome::QueueFull => {
                request.srb_status = srb::BUSY;
                request.scsi_status = scsi::TASK_SET_FULL;
                NtStatus::DeviceBusy
            }
            Outcome::InvalidLun | Outcome::Malformed => {
                request.srb_status = srb::INVALID_LUN;
                request.scsi_status = scsi::CHECK_CONDITION;
                NtStatus::DeviceDoesNotExist
            }
        };
        Reply::with_request(length, status, request)
    }
}
