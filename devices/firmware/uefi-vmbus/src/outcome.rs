//! The outcome of a SCSI command, and its translation to the statuses of UEFI.

use vmbus_protocol::wire_enum;

use crate::packet::{ExecuteSrb, SENSE_BYTES};

/// SCSI status CHECK CONDITION: sense data says more.
const CHECK_CONDITION: u8 = 0x02;
/// SCSI status BUSY: the same command may succeed later.
const BUSY: u8 = 0x08;
/// Bit of the SRB status: sense data is valid.
const AUTOSENSE_VALID: u8 = 0x80;

/// SRB statuses (storvsc section 4.1).
mod srb {
    pub(super) const SUCCESS: u8 = 0x01;
    pub(super) const ERROR: u8 = 0x04;
    pub(super) const BUSY: u8 = 0x05;
    pub(super) const INVALID_REQUEST: u8 = 0x06;
    pub(super) const NO_DEVICE: u8 = 0x08;
    pub(super) const TIMEOUT: u8 = 0x09;
    pub(super) const SELECTION_TIMEOUT: u8 = 0x0A;
    pub(super) const COMMAND_TIMEOUT: u8 = 0x0B;
    pub(super) const BUS_RESET: u8 = 0x0E;
    pub(super) const DATA_OVERRUN: u8 = 0x12;
    pub(super) const INVALID_LUN: u8 = 0x20;
    pub(super) const INVALID_TARGET: u8 = 0x21;
}

/// The outcome of a command that the host completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    srb_status: u8,
    scsi_status: u8,
    /// Bytes moved.
    pub transferred: u32,
    sense: [u8; SENSE_BYTES],
    sense_length: u8,
}

wire_enum! {
    /// The status of the host adapter, as UEFI and SCSI pass-through name it. The numbers are those of
    /// `EFI_EXT_SCSI_STATUS_HOST_ADAPTER_*`.
    pub enum HostAdapter: u8 {
        /// The target answered: its own status decides.
        Ok = 0x00,
        /// The command timed out.
        CommandTimeout = 0x09,
        /// The bus was reset.
        BusReset = 0x0E,
        /// There is no such target or LUN.
        SelectionTimeout = 0x11,
        /// The target moved another number of bytes than the command announced, or the number is more
        /// than one request may move.
        Overrun = 0x12,
        /// Any other failure.
        Other = 0x7F,
    }
}

impl Outcome {
    /// Reads the host's answer. `limit` is the number of bytes that the request could move.
    pub(crate) fn of(answer: &ExecuteSrb, limit: u32) -> Self {
        let valid =
            answer.scsi_status == CHECK_CONDITION && answer.srb_status & AUTOSENSE_VALID != 0;
        let sense_length = if valid { answer.sense_info_length.min(SENSE_BYTES as u8) } else { 0 };
        Self {
            srb_status: answer.srb_status & 0x3F,
            scsi_status: answer.scsi_status,
            transferred: answer.data_transfer_length.get().min(limit),
            sense: answer.cdb_or_sense,
            sense_length,
        }
    }

    /// Returns true for success.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.srb_status == srb::SUCCESS && self.scsi_status == 0
    }

    /// Returns the sense data: up to 20 bytes, none if the device gave none.
    #[must_use]
    pub fn sense(&self) -> &[u8] {
        &self.sense[..self.sense_length.into()]
    }

    /// Returns (sense key, additional sense code, qualifier) of sense data in the fixed format.
    #[must_use]
    pub fn sense_code(&self) -> Option<(u8, u8, u8)> {
        match *self.sense() {
            [0x70 | 0x71, _, key, _, _, _, _, _, _, _, _, _, asc, ascq, ..] => {
                Some((key & 0x0F, asc, ascq))
            }
            _ => None,
        }
    }

    /// Returns the status of the target, as in SCSI.
    #[must_use]
    pub fn target_status(&self) -> u8 {
        match self.srb_status {
            srb::BUSY if self.scsi_status == 0 => BUSY,
            _ => self.scsi_status,
        }
    }

    /// Returns the status of the host adapter.
    #[must_use]
    pub fn host_adapter(&self) -> HostAdapter {
        match self.srb_status {
            // The sense data explains the failure.
            _ if self.sense_length != 0 => HostAdapter::Ok,
            srb::SUCCESS | srb::BUSY => HostAdapter::Ok,
            // RESERVATION CONFLICT and others come without sense data.
            srb::ERROR | srb::INVALID_REQUEST if self.scsi_status != 0 => HostAdapter::Ok,
            srb::TIMEOUT | srb::COMMAND_TIMEOUT => HostAdapter::CommandTimeout,
            srb::SELECTION_TIMEOUT | srb::NO_DEVICE | srb::INVALID_LUN | srb::INVALID_TARGET => {
                HostAdapter::SelectionTimeout
            }
            srb::BUS_RESET => HostAdapter::BusReset,
            srb::DATA_OVERRUN => HostAdapter::Overrun,
            _ => HostAdapter::Other,
        }
    }
}
