//! EXECUTE_SRB: a SCSI command with its address and its data phase (spec storvsc section 4).

use zerocopy::FromBytes;

use super::completion::Completion;
use super::limits::MAX_TRANSFER;
use synthvm_scsi::{CheckCondition, Transfer};
use synthvm_storvsc::{CDB_LEN, HEADER, ScsiRequest, direction};

/// The SCSI address of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Bus.
    pub path: u8,
    /// Target.
    pub target: u8,
    /// Logical unit.
    pub lun: u8,
}

/// The address scheme of a channel's disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// A SCSI controller: any LUN of path 0, target 0. Linux probes 8 paths and 2 targets.
    Scsi,
    /// One disk behind an IDE controller: LUN 0 of its target. Windows sends any path and Linux
    /// always 0, so the path is ignored (spec storvsc section 9).
    Ide {
        /// Device on the IDE controller, 0 or 1.
        device: u8,
    },
}

impl Routing {
    /// Returns the LUN of `address`, or `None` if path or target have no disks.
    pub fn lun(self, address: Address) -> Option<u8> {
        let here = match self {
            Self::Scsi => address.path == 0 && address.target == 0,
            Self::Ide { device } => address.target == device,
        };
        here.then_some(address.lun)
    }
}

/// The fields of a request that its completion needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completer {
    /// Bytes that the guest sent with the command.
    sent: u32,
    /// Bytes of the request packet. The completion has the same size.
    packet_length: u8,
}

impl Completer {
    /// Returns the bytes that the guest sent with the command. A successful command reports all of
    /// them as transferred, even if it used only some: guests take a lower count for a short
    /// transfer.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// Returns a success with `bytes` bytes transferred. Reads and writes must report all bytes, as
    /// less is a short transfer.
    pub fn good(&self, bytes: u32) -> Completion {
        Completion::good(self.packet_length, bytes)
    }

    /// Returns the completion of a command that returns no data to the guest.
    pub fn end(&self, result: Result<(), CheckCondition>) -> Completion {
        match result {
            Ok(()) => self.good(self.sent()),
            Err(condition) => self.check(condition),
        }
    }

    /// Returns CHECK CONDITION, with no data transferred.
    pub fn check(&self, condition: CheckCondition) -> Completion {
        Completion::check(self.packet_length, condition)
    }

    /// Returns RESERVATION CONFLICT.
    pub fn conflict(&self) -> Completion {
        Completion::conflict(self.packet_length)
    }

    /// Returns TASK SET FULL: the guest sends the command again after another one has ended.
    pub fn queue_full(&self) -> Completion {
        Completion::queue_full(self.packet_length)
    }

    /// Returns the completion for an absent LUN. Linux removes its device when it sees this, so it
    /// must never report a temporary condition.
    pub fn invalid_lun(&self) -> Completion {
        Completion::invalid_lun(self.packet_length)
    }
}

/// A validated request: the CDB's length is valid, and the guest's buffer has the bytes of
/// `transfer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Srb {
    /// The SCSI address.
    pub address: Address,
    /// The command, zero-padded.
    pub cdb: [u8; CDB_LEN],
    /// Valid bytes of `cdb`, 1..=16.
    pub cdb_length: u8,
    /// The data phase: at most [`MAX_TRANSFER`] bytes, and no more than the guest's buffer.
    pub transfer: Transfer,
    /// Makes the request's completion.
    pub completer: Completer,
}

impl Srb {
    /// Parses the payload of a packet of `packet_length` bytes with `buffer_length` bytes of guest
    /// memory.
    ///
    /// # Errors
    /// The completion that refuses the request.
    pub(super) fn parse(
        payload: &[u8],
        packet_length: usize,
        buffer_length: usize,
    ) -> Result<Self, Completion> {
        let packet_length = packet_length.min(super::MAX_PACKET) as u8;
        let Ok((request, _)) = ScsiRequest::read_from_prefix(payload) else {
            return Err(Completion::malformed(packet_length));
        };
        let mut cdb = [0; CDB_LEN];
        cdb.copy_from_slice(&request.cdb_or_sense[..CDB_LEN]);
        let length = request.data_transfer_length.get();
        let transfer = match request.data_in {
            direction::TO_DEVICE if length != 0 => Transfer::ToDisk(length),
            direction::FROM_DEVICE if length != 0 => Transfer::ToGuest(length),
            _ => Transfer::None,
        };
        let sent = match transfer {
            Transfer::ToDisk(length) => length,
            Transfer::ToGuest(_) | Transfer::None => 0,
        };
        let srb = Self {
            address: Address { path: request.path_id, target: request.target_id, lun: request.lun },
            cdb,
            cdb_length: request.cdb_length,
            transfer,
            completer: Completer { sent, packet_length },
        };
        let cdb_fits = (1..=CDB_LEN).contains(&request.cdb_length.into());
        let direction_known = length == 0 || transfer != Transfer::None;
        let data_fits = length <= MAX_TRANSFER && length as usize <= buffer_length;
        if cdb_fits && direction_known && data_fits {
            Ok(srb)
        } else {
            Err(srb.completer.check(CheckCondition::INVALID_FIELD))
        }
    }

    /// Returns true if the command is INQUIRY, well-formed or not.
    pub fn is_inquiry(&self) -> bool {
        const INQUIRY: u8 = 0x12;
        self.cdb[0] == INQUIRY
    }

    /// Bytes of the shortest packet that holds a request.
    pub(super) const SHORTEST: usize = HEADER + size_of::<ScsiRequest>();
}
