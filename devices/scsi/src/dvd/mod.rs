//! A DVD drive, which decides MMC commands (spec storvsc section 8). Discs are read-only and have
//! blocks of 2048 bytes, for every block size of the backend.
//!
//! The drive outlives its discs. Every answer about a disc follows from its size, so the drive
//! keeps only the size.

mod events;
mod features;
mod identity;
mod information;
mod mode;
mod structure;
#[cfg(test)]
mod tests;
mod toc;
mod tray;

use std::sync::{Mutex, MutexGuard, PoisonError};

use synthvm_block::Operation;

use super::decision::ParametersKind;
use super::fields::be16;
use super::{
    CheckCondition, Decision, DiskIdentity, Io, ModeForm, Parameters, Range, Sense, Transfer, cdb,
    opcode as op,
};
use crate::saved::SavedTray;
use tray::Tray;
pub use tray::{TrayLocked, TrayReport};

/// Log2 of the bytes of a block.
const BLOCK_SHIFT: u32 = 11;

/// Bytes of a block.
pub const DVD_BLOCK: u32 = 1 << BLOCK_SHIFT;

/// A disc that was put into a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disc {
    /// The number of the insertion. It differs for every inserted disc.
    number: u64,
    blocks: u32,
}

impl Disc {
    /// Size in bytes: whole blocks.
    pub fn capacity(self) -> u64 {
        u64::from(self.blocks) << BLOCK_SHIFT
    }
}

/// A drive without the backend of its disc: it takes commands and returns decisions. The workers of
/// all channels share it, and so do all its discs.
#[derive(Debug)]
pub struct DvdDrive {
    identity: DiskIdentity,
    tray: Mutex<Tray>,
}

/// The number of bytes that the guest asked for; the answer itself is in the output buffer.
type Answer = Result<u32, CheckCondition>;

impl DvdDrive {
    /// Returns an empty drive with its tray closed.
    pub fn new(identity: DiskIdentity) -> Self {
        Self { identity, tray: Mutex::default() }
    }

    /// Returns the names by which a guest recognises the drive.
    pub fn identity(&self) -> &DiskIdentity {
        &self.identity
    }

    /// Returns the state of the tray.
    pub fn report(&self) -> TrayReport {
        self.tray().report()
    }

    /// Inserts a disc of `capacity` bytes, in place of a disc that may be there, and closes the
    /// tray. `None`: the capacity is less than one block. The guest cannot reach blocks beyond the
    /// first 2^32 - 1.
    ///
    /// # Errors
    /// The guest has locked the tray, with a disc inside.
    pub fn insert(&self, capacity: u64) -> Result<Option<Disc>, TrayLocked> {
        match u32::try_from(capacity >> BLOCK_SHIFT).unwrap_or(u32::MAX) {
            0 => Ok(None),
            blocks => self.tray().insert(blocks).map(Some),
        }
    }

    /// Removes the disc, if there is one, and leaves the tray open. `force`: even when the guest
    /// has locked it.
    ///
    /// # Errors
    /// The guest has locked the tray. It gets an eject request event.
    pub fn eject(&self, force: bool) -> Result<(), TrayLocked> {
        self.tray().eject_by_user(force)
    }

    /// Unlocks the tray, because the guest was reset and no longer knows of its lock.
    pub fn reset(&self) {
        self.tray().unlock();
    }

    /// Returns the state that another process needs to resume with this drive.
    pub(crate) fn saved(&self) -> SavedTray {
        self.tray().saved()
    }

    /// Resumes from `saved`.
    pub(crate) fn restore(&self, saved: &SavedTray) {
        self.tray().restore(saved);
    }

    /// Decides the command in the first `length` bytes of `cdb`. `disc` is the disc whose image the
    /// caller holds. The answer is appended to `out`, which the caller empties and reuses.
    ///
    /// # Errors
    /// The check condition to report; `out` is then unchanged.
    pub fn execute(
        &self,
        cdb: &[u8; 16],
        length: u8,
        disc: Option<Disc>,
        transfer: Transfer,
        out: &mut Vec<u8>,
    ) -> Result<Decision, CheckCondition> {
        let needed = op::cdb_length(cdb[0]).ok_or(CheckCondition::INVALID_OPCODE)?;
        if !is_known(cdb[0]) {
            return Err(CheckCondition::INVALID_OPCODE);
        }
        cdb::check_length_and_control(cdb, length, needed)?;
        match cdb[0] {
            op::READ_10 | op::READ_12 | op::READ_16 => self.read(cdb, disc, transfer),
            op::TEST_UNIT_READY => self.tray().disc().map(|_| Decision::Good),
            op::START_STOP_UNIT => self.start_stop(cdb),
            op::PREVENT_ALLOW => {
                self.tray().prevent(cdb[4]);
                Ok(Decision::Good)
            }
            op::MODE_SELECT_10 => mode_select(cdb, transfer),
            op::SET_STREAMING => set_streaming(cdb, transfer),
            _ => self.answer(cdb, transfer, out),
        }
    }

    /// Decides a command with the parameter list that [`Decision::Parameters`] asked for.
    ///
    /// # Errors
    /// The check condition to report.
    pub fn parameters(&self, of: Parameters, list: &[u8]) -> Result<Decision, CheckCondition> {
        match of.kind {
            ParametersKind::ModeSelect(form) => mode::select(form, list).map(|()| Decision::Good),
            // The other lists set a speed, and the drive always reads at full speed.
            _ => Ok(Decision::Good),
        }
    }

    fn read(
        &self,
        cdb: &[u8; 16],
        reachable: Option<Disc>,
        transfer: Transfer,
    ) -> Result<Decision, CheckCondition> {
        let (lba, blocks) = cdb::extent(cdb)?;
        let disc = self.tray().disc()?;
        if reachable != Some(disc) {
            // The disc was exchanged a moment ago. When the guest retries, the caller holds the new
            // disc.
            return Err(CheckCondition::execution(Sense::BECOMING_READY));
        }
        let end = lba.checked_add(blocks.into()).ok_or(CheckCondition::OUT_OF_RANGE)?;
        if end > disc.blocks.into() {
            return Err(CheckCondition::OUT_OF_RANGE);
        }
        let range = Range { offset: lba << BLOCK_SHIFT, length: u64::from(blocks) << BLOCK_SHIFT };
        match transfer {
            _ if blocks == 0 => Ok(Decision::Good),
            Transfer::ToGuest(room) if range.length <= room.into() => {
                Ok(Decision::Io(Io { operation: Operation::Read, range }))
            }
            Transfer::ToGuest(_) => Err(CheckCondition::OUT_OF_BUFFER),
            _ => Err(CheckCondition::INVALID_FIELD),
        }
    }

    fn start_stop(&self, cdb: &[u8; 16]) -> Result<Decision, CheckCondition> {
        let (power_condition, load_eject, start) =
            (cdb[4] >> 4, cdb[4] & 0x02 != 0, cdb[4] & 0x01 != 0);
        match (power_condition, load_eject, start) {
            (0, true, false) => {
                let had_disc = self.tray().eject_by_guest()?;
                Ok(if had_disc { Decision::Ejected } else { Decision::Good })
            }
            (0, true, true) => {
                self.tray().close();
                Ok(Decision::Good)
            }
            // A virtual drive neither spins nor sleeps.
            _ => Ok(Decision::Good),
        }
    }

    /// Answers the commands whose whole result is a few bytes for the guest.
    fn answer(
        &self,
        cdb: &[u8; 16],
        transfer: Transfer,
        out: &mut Vec<u8>,
    ) -> Result<Decision, CheckCondition> {
        if let Transfer::ToDisk(_) = transfer {
            return Err(CheckCondition::INVALID_FIELD);
        }
        let (start, room) = (out.len(), transfer.length());
        let wanted = self.data(cdb, room, out).inspect_err(|_| out.truncate(start))?;
        if transfer == Transfer::None {
            out.truncate(start);
            // A guest without a buffer must ask for 0 bytes.
            return if wanted == 0 { Ok(Decision::Good) } else { Err(CheckCondition::OVERRUN) };
        }
        out.truncate(start + wanted.min(room) as usize);
        Ok(Decision::Reply)
    }

    fn data(&self, cdb: &[u8; 16], room: u32, out: &mut Vec<u8>) -> Answer {
        match cdb[0] {
            op::INQUIRY => identity::inquiry(cdb, room, &self.identity, out),
            op::REQUEST_SENSE => request_sense(cdb, out),
            op::MODE_SENSE_6 => {
                mode::sense(cdb, ModeForm::Six, u16::from(cdb[4]), &self.tray(), out)
            }
            op::MODE_SENSE_10 => mode::sense(cdb, ModeForm::Ten, be16(cdb, 7), &self.tray(), out),
            op::GET_CONFIGURATION => features::configuration(cdb, self.tray().disc().is_ok(), out),
            op::GET_EVENT_STATUS => events::status(cdb, room, &mut self.tray(), out),
            op::MECHANISM_STATUS => Ok(information::mechanism(cdb, &self.tray(), out)),
            op::READ_BUFFER_CAPACITY => Ok(information::buffer_capacity(cdb, out)),
            // All other commands ask about the disc.
            opcode => {
                let disc = self.tray().disc()?;
                match opcode {
                    op::READ_CAPACITY_10 => {
                        if room < 8 {
                            return Err(CheckCondition::OVERRUN);
                        }
                        out.extend_from_slice(&(disc.blocks - 1).to_be_bytes());
                        out.extend_from_slice(&DVD_BLOCK.to_be_bytes());
                        Ok(8)
                    }
                    op::READ_TOC => toc::read(cdb, disc, out),
                    op::READ_DISC_INFORMATION => information::disc(cdb, out),
                    op::READ_TRACK_INFORMATION => information::track(cdb, disc, out),
                    op::GET_PERFORMANCE => information::performance(cdb, disc, out),
                    op::READ_DVD_STRUCTURE => structure::read(cdb, disc, out),
                    _ => Err(CheckCondition::INVALID_OPCODE),
                }
            }
        }
    }

    fn tray(&self) -> MutexGuard<'_, Tray> {
        self.tray.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_known(opcode: u8) -> bool {
    matches!(
        opcode,
        op::TEST_UNIT_READY
            | op::REQUEST_SENSE
            | op::INQUIRY
            | op::MODE_SENSE_6
            | op::START_STOP_UNIT
            | op::PREVENT_ALLOW
            | op::READ_CAPACITY_10
            | op::READ_10
            | op::READ_TOC
            | op::GET_CONFIGURATION
            | op::GET_EVENT_STATUS
            | op::READ_DISC_INFORMATION
            | op::READ_TRACK_INFORMATION
            | op::MODE_SELECT_10
            | op::MODE_SENSE_10
            | op::READ_BUFFER_CAPACITY
            | op::READ_16
            | op::READ_12
            | op::GET_PERFORMANCE
            | op::READ_DVD_STRUCTURE
            | op::SET_STREAMING
            | op::MECHANISM_STATUS
    )
}

/// Answers REQUEST SENSE. Every failure carries its sense data, so none is ever left to report.
fn request_sense(cdb: &[u8; 16], out: &mut Vec<u8>) -> Answer {
    let descriptor_format = cdb[1] & 0x01 != 0;
    if descriptor_format {
        return Err(CheckCondition::INVALID_FIELD);
    }
    out.extend_from_slice(&Sense::NONE.to_fixed());
    Ok(cdb[4].into())
}

fn mode_select(cdb: &[u8; 16], transfer: Transfer) -> Result<Decision, CheckCondition> {
    let save_pages = cdb[1] & 0x01 != 0;
    if save_pages {
        return Err(CheckCondition::INVALID_FIELD);
    }
    list(be16(cdb, 7), ParametersKind::ModeSelect(ModeForm::Ten), transfer)
}

fn set_streaming(cdb: &[u8; 16], transfer: Transfer) -> Result<Decision, CheckCondition> {
    list(be16(cdb, 9), ParametersKind::Ignored, transfer)
}

/// Asks for a parameter list of `length` bytes. A length of 0 is valid and needs no list.
fn list(length: u16, kind: ParametersKind, transfer: Transfer) -> Result<Decision, CheckCondition> {
    match transfer {
        _ if length == 0 => Ok(Decision::Good),
        Transfer::ToDisk(room) if room >= length.into() => {
            Ok(Decision::Parameters(Parameters { length: length.into(), kind }))
        }
        _ => Err(CheckCondition::invalid(Sense::PARAMETER_LIST_LENGTH)),
    }
}
