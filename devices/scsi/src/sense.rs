//! Sense data: the reason that a command failed (spec storvsc section 7).

/// Sense key, additional sense code and qualifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// Sense key, 0..=15.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
}

impl Sense {
    /// 0/00/00: nothing to report.
    pub const NONE: Self = Self::new(0x0, 0x00, 0x00);
    /// 2/04/01: becoming ready. Guests retry.
    pub const BECOMING_READY: Self = Self::new(0x2, 0x04, 0x01);
    /// 2/3A/01: medium not present, tray closed.
    pub const NO_MEDIUM_TRAY_CLOSED: Self = Self::new(0x2, 0x3A, 0x01);
    /// 2/3A/02: medium not present, tray open.
    pub const NO_MEDIUM_TRAY_OPEN: Self = Self::new(0x2, 0x3A, 0x02);
    /// 2/53/02: medium removal prevented, in a drive without a medium.
    pub const NOT_READY_REMOVAL_PREVENTED: Self = Self::new(0x2, 0x53, 0x02);
    /// 3/00/00: medium error without a specific code.
    pub const MEDIUM_ERROR: Self = Self::new(0x3, 0x00, 0x00);
    /// 3/11/00: unrecovered read error.
    pub const READ_ERROR: Self = Self::new(0x3, 0x11, 0x00);
    /// 3/0C/00: write error.
    pub const WRITE_ERROR: Self = Self::new(0x3, 0x0C, 0x00);
    /// 5/1A/00: parameter list length error.
    pub const PARAMETER_LIST_LENGTH: Self = Self::new(0x5, 0x1A, 0x00);
    /// 5/20/00: invalid command operation code.
    pub const INVALID_OPCODE: Self = Self::new(0x5, 0x20, 0x00);
    /// 5/21/00: logical block address out of range.
    pub const LBA_OUT_OF_RANGE: Self = Self::new(0x5, 0x21, 0x00);
    /// 5/24/00: invalid field in CDB.
    pub const INVALID_FIELD_IN_CDB: Self = Self::new(0x5, 0x24, 0x00);
    /// 5/26/00: invalid field in parameter list.
    pub const INVALID_FIELD_IN_PARAMETERS: Self = Self::new(0x5, 0x26, 0x00);
    /// 5/26/04: invalid release of persistent reservation.
    pub const INVALID_RELEASE: Self = Self::new(0x5, 0x26, 0x04);
    /// 5/39/00: saving parameters not supported.
    pub const SAVING_NOT_SUPPORTED: Self = Self::new(0x5, 0x39, 0x00);
    /// 5/53/02: medium removal prevented.
    pub const REMOVAL_PREVENTED: Self = Self::new(0x5, 0x53, 0x02);
    /// 6/2A/09: capacity data has changed.
    pub const CAPACITY_CHANGED: Self = Self::new(0x6, 0x2A, 0x09);
    /// 7/27/00: write protected.
    pub const WRITE_PROTECTED: Self = Self::new(0x7, 0x27, 0x00);
    /// 7/27/07: space allocation failed write protect. Linux turns it into ENOSPC.
    pub const SPACE_ALLOCATION_FAILED: Self = Self::new(0x7, 0x27, 0x07);

    /// E/1D/00: miscompare during verify operation.
    pub const MISCOMPARE: Self = Self::new(0xE, 0x1D, 0x00);

    /// Bytes of fixed-format sense data.
    pub const FIXED_LEN: usize = 18;

    /// Returns a sense triple.
    pub const fn new(key: u8, asc: u8, ascq: u8) -> Self {
        Self { key, asc, ascq }
    }

    /// Returns fixed-format sense data, response code 0x70 (current error). Guests do not expect
    /// descriptor format here.
    pub const fn to_fixed(self) -> [u8; Self::FIXED_LEN] {
        let mut bytes = [0; Self::FIXED_LEN];
        bytes[0] = 0x70;
        bytes[2] = self.key;
        bytes[7] = 10; // additional length: all 18 bytes
        bytes[12] = self.asc;
        bytes[13] = self.ascq;
        bytes
    }
}

/// The family of errors of a check condition. It determines the SRB status (spec storvsc section
/// 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The command was valid, but its execution failed.
    Execution,
    /// The command itself is invalid or unknown.
    InvalidRequest,
    /// The buffer is too small for data that cannot be cut short.
    DataOverrun,
}

/// SCSI status CHECK CONDITION with its sense data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckCondition {
    /// The sense data, for the guest's SCSI layer.
    pub sense: Sense,
    /// The cause, for the guest's port driver.
    pub cause: Cause,
}

impl CheckCondition {
    /// 5/20/00 for an unknown command.
    pub const INVALID_OPCODE: Self = Self::invalid(Sense::INVALID_OPCODE);
    /// 5/24/00 for a wrong field in the CDB.
    pub const INVALID_FIELD: Self = Self::invalid(Sense::INVALID_FIELD_IN_CDB);
    /// 5/21/00 for blocks beyond the end of the disk.
    pub const OUT_OF_RANGE: Self = Self::execution(Sense::LBA_OUT_OF_RANGE);
    /// 5/21/00 for more blocks than the guest's buffer holds. Hyper-V reports the same code.
    pub const OUT_OF_BUFFER: Self = Self::invalid(Sense::LBA_OUT_OF_RANGE);
    /// 5/24/00 for a buffer that is too small.
    pub const OVERRUN: Self =
        Self { sense: Sense::INVALID_FIELD_IN_CDB, cause: Cause::DataOverrun };

    /// Returns the failure of a valid command.
    pub const fn execution(sense: Sense) -> Self {
        Self { sense, cause: Cause::Execution }
    }

    /// Returns the refusal of an invalid command.
    pub const fn invalid(sense: Sense) -> Self {
        Self { sense, cause: Cause::InvalidRequest }
    }
}
