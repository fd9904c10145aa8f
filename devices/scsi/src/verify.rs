//! VERIFY and WRITE AND VERIFY (SBC-3, field BYTCHK).

use super::decision::ParametersKind;
use synthvm_block::Operation;

use super::{CheckCondition, Decision, Disk, Expected, Job, Transfer};

/// The data with which the blocks of the disk are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteCheck {
    /// No data: the blocks must only exist.
    None,
    /// The guest's buffer.
    Buffer,
    /// One block from the guest, with every block of the disk.
    Block,
}

impl ByteCheck {
    /// Parses bits 2:1 of byte 1 of the CDB. 2 is reserved.
    pub(super) fn from_bits(byte: u8) -> Result<Self, CheckCondition> {
        match byte >> 1 & 3 {
            0 => Ok(Self::None),
            1 => Ok(Self::Buffer),
            3 => Ok(Self::Block),
            _ => Err(CheckCondition::INVALID_FIELD),
        }
    }
}

impl Disk {
    pub(super) fn verify(
        &self,
        (lba, blocks): (u64, u32),
        check: ByteCheck,
        transfer: Transfer,
    ) -> Result<Decision, CheckCondition> {
        self.check_range(lba, blocks)?;
        match check {
            _ if blocks == 0 => Ok(Decision::Good),
            ByteCheck::None => Ok(Decision::Good),
            ByteCheck::Buffer => {
                let Transfer::ToDisk(room) = transfer else {
                    return Err(CheckCondition::INVALID_FIELD);
                };
                let range = self.range(lba, blocks);
                if range.length > room.into() {
                    return Err(self.does_not_fit(blocks));
                }
                let expected = Expected::Buffer;
                Ok(Decision::Job(Box::new(Job::Compare { range, expected, write: false })))
            }
            ByteCheck::Block => {
                self.check_same_length(blocks)?;
                self.one_block(ParametersKind::Verify(self.range(lba, blocks)), transfer)
            }
        }
    }

    /// Decides WRITE AND VERIFY. Verified data must be durable; only `compare` reads the blocks
    /// back.
    pub(super) fn write_and_verify(
        &self,
        (lba, blocks): (u64, u32),
        compare: bool,
        transfer: Transfer,
    ) -> Result<Decision, CheckCondition> {
        match self.io(Operation::Write { fua: true }, lba, blocks, transfer)? {
            Decision::Io(io) if compare => {
                let expected = Expected::Buffer;
                Ok(Decision::Job(Box::new(Job::Compare { range: io.range, expected, write: true })))
            }
            other => Ok(other),
        }
    }
}
