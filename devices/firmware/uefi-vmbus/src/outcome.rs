//! The outcome of a SCSI command, and its translation to the statuses of UEFI.

use synthvm_storvsc::{SENSE_LEN, ScsiRequest, scsi, srb};
use vmbus_protocol::wire_enum;

/// The outcome of a command that the host completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    srb_status: u8,
    scsi_status: u8,
    /// Bytes moved.
    pub transferred: u32,
    sense: [u8; SENSE_LEN],
    sense_length: u8,
}

wire_enum! {
    /// The status of the host adapter, as UEFI and SCSI pass-through name it. The numbers are those
    /// of `EFI_EXT_SCSI_STATUS_HOST_ADAPTER_*`.
    pub enum HostAdapter: u8 {
        /// The target answered: its own status decides.
        Ok = 0x00,
        /// The command timed out.
        CommandTimeout = 0x09,
        /// The bus was reset.
        BusReset = 0x0E,
        /// There is no such target or LUN.
        SelectionTimeout = 0x11,
        /// The target moved another number of bytes than the command announced, or the number is
        /// more than one request may move.
        Overrun = 0x12,
        /// Any other failure.
        Other = 0x7F,
    }
}

impl Outcome {
    /// Reads the host's answer. `limit` is the number of bytes that the request could move.
    pub(crate) fn of(answer: &ScsiRequest, limit: u32) -> Self {
        let valid = answer.scsi_status == scsi::CHECK_CONDITION
            && answer.srb_status & srb::AUTOSENSE_VALID != 0;
        let sense_length = if valid { answer.sense_info_length.min(SENSE_LEN as u8) } else { 0 };
        Self {
            srb_status: answer.srb_status & srb::STATUS_MASK,
            scsi_status: answer.scsi_status,
            transferred: answer.data_transfer_length.get().min(limit),
            sense: answer.cdb_or_sense,
            sense_length,
        }
    }

    /// Returns true for success.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.srb_status == srb::SUCCESS && self.scsi_status == scsi::GOOD
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
            srb::BUSY if self.scsi_status == scsi::GOOD => scsi::BUSY,
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
            srb::ERROR | srb::INVALID_REQUEST if self.scsi_status != scsi::GOOD => HostAdapter::Ok,
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
