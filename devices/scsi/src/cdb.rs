//! CDBs, parsed once into [`Command`].

use super::fields::{be16, be32, be64};
use super::opcode as op;
use super::reservation::{ReserveIn, ReserveOut};
use super::{ByteCheck, CheckCondition};

/// A parsed command. Every field has its final meaning: counts are in blocks, and "0 means 256" is
/// already applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields carry the names of the SCSI standards")]
pub enum Command {
    TestUnitReady,
    RequestSense {
        allocation: u8,
    },
    Inquiry {
        page: Option<u8>,
        allocation: u16,
    },
    ModeSense {
        form: ModeForm,
        control: PageControl,
        page: u8,
        subpage: u8,
        allocation: u16,
    },
    ModeSelect {
        form: ModeForm,
        length: u16,
    },
    /// RESERVE and RELEASE, (6) and (10). The disk has one initiator, so both always succeed.
    Reservation,
    /// `flush`: the unit stops, so the backend must first be flushed.
    StartStop {
        flush: bool,
    },
    SendDiagnostic,
    PreventAllow,
    ReadCapacity10,
    ReadCapacity16 {
        allocation: u32,
    },
    Read {
        lba: u64,
        blocks: u32,
    },
    Write {
        lba: u64,
        blocks: u32,
        fua: bool,
    },
    /// WRITE AND VERIFY. `compare`: the written blocks are read back and compared.
    WriteAndVerify {
        lba: u64,
        blocks: u32,
        compare: bool,
    },
    Verify {
        lba: u64,
        blocks: u32,
        check: ByteCheck,
    },
    /// `length` bytes of parameter list.
    Unmap {
        length: u16,
    },
    /// `data`: the guest sends the block; without it the block is zero.
    WriteSame {
        lba: u64,
        blocks: u32,
        unmap: bool,
        data: bool,
    },
    GetLbaStatus {
        lba: u64,
        allocation: u32,
    },
    PersistentReserveIn {
        what: ReserveIn,
        allocation: u16,
    },
    /// `length` bytes of parameter list.
    PersistentReserveOut {
        what: ReserveOut,
        length: u32,
    },
    /// `blocks` 0 means up to the end of the disk.
    SynchronizeCache {
        lba: u64,
        blocks: u32,
    },
    ReportLuns {
        select: u8,
        allocation: u32,
    },
}

/// The two header layouts of MODE SENSE and MODE SELECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeForm {
    /// The 6-byte CDB: 4-byte header.
    Six,
    /// The 10-byte CDB: 8-byte header.
    Ten,
}

/// The kinds of values that MODE SENSE can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageControl {
    /// The values in force now.
    Current,
    /// A mask of the fields that MODE SELECT may change.
    Changeable,
    /// Power-on values.
    Default,
    /// Saved values.
    Saved,
}

impl Command {
    /// Parses the first `length` (1..=16) bytes of `cdb`.
    ///
    /// # Errors
    /// 5/20/00 for an unknown operation, 5/24/00 for a CDB that is shorter than its operation needs
    /// or asks for something unsupported.
    pub fn parse(cdb: &[u8; 16], length: u8) -> Result<Self, CheckCondition> {
        let c = cdb;
        let opcode = c[0];
        let Some(needed) = op::cdb_length(opcode) else {
            return Err(CheckCondition::INVALID_OPCODE);
        };
        let command = match opcode {
            op::TEST_UNIT_READY => Self::TestUnitReady,
            op::REQUEST_SENSE => request_sense(c)?,
            op::INQUIRY => inquiry(c)?,
            op::MODE_SENSE_6 => mode_sense(c, ModeForm::Six, u16::from(c[4])),
            op::MODE_SENSE_10 => mode_sense(c, ModeForm::Ten, be16(c, 7)),
            op::MODE_SELECT_6 => mode_select(c, ModeForm::Six, u16::from(c[4]))?,
            op::MODE_SELECT_10 => mode_select(c, ModeForm::Ten, be16(c, 7))?,
            op::RESERVE_6 | op::RELEASE_6 | op::RESERVE_10 | op::RELEASE_10 => reservation(c)?,
            op::START_STOP_UNIT => start_stop(c)?,
            op::SEND_DIAGNOSTIC => send_diagnostic(c)?,
            op::PREVENT_ALLOW => Self::PreventAllow,
            op::READ_CAPACITY_10 => Self::ReadCapacity10,
            op::SERVICE_ACTION_IN_16 => service_action_in(c)?,
            op::READ_6 => Self::Read { lba: lba6(c), blocks: blocks6(c) },
            op::WRITE_6 => Self::Write { lba: lba6(c), blocks: blocks6(c), fua: false },
            op::READ_10 | op::READ_12 | op::READ_16 => {
                let (lba, blocks) = extent(c)?;
                Self::Read { lba, blocks }
            }
            op::WRITE_10 | op::WRITE_12 | op::WRITE_16 => {
                let (lba, blocks) = extent(c)?;
                Self::Write { lba, blocks, fua: c[1] & 0x08 != 0 }
            }
            op::WRITE_AND_VERIFY_10 | op::WRITE_AND_VERIFY_12 | op::WRITE_AND_VERIFY_16 => {
                let (lba, blocks) = extent(c)?;
                match ByteCheck::from_bits(c[1])? {
                    ByteCheck::None => Self::WriteAndVerify { lba, blocks, compare: false },
                    ByteCheck::Buffer => Self::WriteAndVerify { lba, blocks, compare: true },
                    ByteCheck::Block => return Err(CheckCondition::INVALID_FIELD),
                }
            }
            op::VERIFY_10 | op::VERIFY_12 | op::VERIFY_16 => {
                let (lba, blocks) = extent(c)?;
                Self::Verify { lba, blocks, check: ByteCheck::from_bits(c[1])? }
            }
            op::SYNCHRONIZE_CACHE_10 => {
                Self::SynchronizeCache { lba: be32(c, 2).into(), blocks: be16(c, 7).into() }
            }
            op::SYNCHRONIZE_CACHE_16 => {
                Self::SynchronizeCache { lba: be64(c, 2), blocks: be32(c, 10) }
            }
            op::WRITE_SAME_10 | op::WRITE_SAME_16 => write_same(c)?,
            op::UNMAP => unmap(c)?,
            op::PERSISTENT_RESERVE_IN => Self::PersistentReserveIn {
                what: ReserveIn::from_action(c[1] & 0x1F)?,
                allocation: be16(c, 7),
            },
            op::PERSISTENT_RESERVE_OUT => Self::PersistentReserveOut {
                what: ReserveOut::from_action(c[1] & 0x1F, c[2])?,
                length: be32(c, 5),
            },
            op::REPORT_LUNS => Self::ReportLuns { select: c[2], allocation: be32(c, 6) },
            _ => return Err(CheckCondition::INVALID_OPCODE),
        };
        check_length_and_control(c, length, needed)?;
        Ok(command)
    }
}

/// Checks that all `needed` bytes of the CDB were sent and that its control byte, the last one,
/// asks for no feature that the unit lacks (SAM-5 section 5.2).
pub(super) fn check_length_and_control(
    c: &[u8; 16],
    length: u8,
    needed: u8,
) -> Result<(), CheckCondition> {
    // NACA asks for an auto contingent allegiance after an error. INQUIRY says that there is none
    // (NORMACA).
    const NACA: u8 = 0x04;
    let control = c[usize::from(needed) - 1];
    if length < needed || control & NACA != 0 { Err(CheckCondition::INVALID_FIELD) } else { Ok(()) }
}

fn request_sense(c: &[u8; 16]) -> Result<Command, CheckCondition> {
    let descriptor_format = c[1] & 0x01 != 0;
    if descriptor_format {
        return Err(CheckCondition::INVALID_FIELD);
    }
    Ok(Command::RequestSense { allocation: c[4] })
}

fn inquiry(c: &[u8; 16]) -> Result<Command, CheckCondition> {
    let (vital_data, command_data) = (c[1] & 0x01 != 0, c[1] & 0x02 != 0);
    if command_data || (!vital_data && c[2] != 0) {
        return Err(CheckCondition::INVALID_FIELD);
    }
    Ok(Command::Inquiry { page: vital_data.then_some(c[2]), allocation: be16(c, 3) })
}

fn mode_sense(c: &[u8; 16], form: ModeForm, allocation: u16) -> Command {
    let control = match c[2] >> 6 {
        0 => PageControl::Current,
        1 => PageControl::Changeable,
        2 => PageControl::Default,
        _ => PageControl::Saved,
    };
    Command::ModeSense { form, control, page: c[2] & 0x3F, subpage: c[3], allocation }
}

fn mode_select(c: &[u8; 16], form: ModeForm, length: u16) -> Result<Command, CheckCondition> {
    let save_pages = c[1] & 0x01 != 0;
    if save_pages {
        return Err(CheckCondition::INVALID_FIELD);
    }
    Ok(Command::ModeSelect { form, length })
}

/// Refuses a reservation for a third party (3RDPTY) and one for a part of the unit (the obsolete
/// EXTENT): the unit has neither.
fn reservation(c: &[u8; 16]) -> Result<Command, CheckCondition> {
    let (third_party, extent) = (c[1] & 0x10 != 0, c[1] & 0x01 != 0);
    if third_party || extent {
        Err(CheckCondition::INVALID_FIELD)
    } else {
        Ok(Command::Reservation)
    }
}

/// Parses START STOP UNIT. IMMED permits an early answer but does not demand one, and an early
/// answer would hide a failed flush.
fn start_stop(c: &[u8; 16]) -> Result<Command, CheckCondition> {
    let (power_condition, load_eject, start) = (c[4] >> 4, c[4] & 0x02 != 0, c[4] & 0x01 != 0);
    let flush = match power_condition {
        // START_VALID: START and LOEJ are valid only with this power condition. A disk has no tray.
        0x0 if load_eject => return Err(CheckCondition::INVALID_FIELD),
        0x0 => !start,
        // ACTIVE, and LU_CONTROL, which starts timers.
        0x1 | 0x7 => false,
        // IDLE, STANDBY, the obsolete SLEEP, and the first two forced.
        0x2 | 0x3 | 0x5 | 0xA | 0xB => true,
        _ => return Err(CheckCondition::INVALID_FIELD),
    };
    Ok(Command::StartStop { flush })
}

/// Parses SEND DIAGNOSTIC. The default self-test, which every device must offer (SPC-4 section
/// 5.15.2), finds no error in a virtual disk. The unit has no other self-tests and no diagnostic
/// pages.
fn send_diagnostic(c: &[u8; 16]) -> Result<Command, CheckCondition> {
    let (self_test_code, list_length) = (c[1] >> 5, be16(c, 3));
    if self_test_code != 0 || list_length != 0 {
        return Err(CheckCondition::INVALID_FIELD);
    }
    Ok(Command::SendDiagnostic)
}

fn service_action_in(c: &[u8; 16]) -> Result<Command, CheckCondition> {
    match c[1] & 0x1F {
        op::SA_READ_CAPACITY_16 => Ok(Command::ReadCapacity16 { allocation: be32(c, 10) }),
        op::SA_GET_LBA_STATUS => {
            Ok(Command::GetLbaStatus { lba: be64(c, 2), allocation: be32(c, 10) })
        }
        // The operation is known; the service action is a field of it.
        _ => Err(CheckCondition::INVALID_FIELD),
    }
}

fn write_same(c: &[u8; 16]) -> Result<Command, CheckCondition> {
    let (lba, blocks) = extent(c)?;
    let (anchor, unmap, no_data) = (c[1] & 0x10 != 0, c[1] & 0x08 != 0, c[1] & 0x01 != 0);
    // The disk anchors no blocks: it either allocates space or releases it. LBDATA and PBDATA,
    // which are obsolete, ask that each block carry its own address.
    let addresses = c[1] & 0x06 != 0;
    if anchor || addresses {
        return Err(CheckCondition::INVALID_FIELD);
    }
    Ok(Command::WriteSame { lba, blocks, unmap, data: !no_data })
}

fn unmap(c: &[u8; 16]) -> Result<Command, CheckCondition> {
    let anchor = c[1] & 0x01 != 0;
    if anchor {
        Err(CheckCondition::INVALID_FIELD)
    } else {
        Ok(Command::Unmap { length: be16(c, 7) })
    }
}

/// Returns the first block and the count of a media access command of 10, 12 or 16 bytes.
pub(super) fn extent(c: &[u8; 16]) -> Result<(u64, u32), CheckCondition> {
    let protection = c[1] >> 5 != 0;
    let (lba, blocks, relative) = match c[0] >> 5 {
        4 => (be64(c, 2), be32(c, 10), false),
        5 => (be32(c, 2).into(), be32(c, 6), c[1] & 0x01 != 0),
        _ => (be32(c, 2).into(), be16(c, 7).into(), c[1] & 0x01 != 0),
    };
    // The disk has no protection information, and relative addresses became obsolete with linked
    // commands.
    if protection || relative { Err(CheckCondition::INVALID_FIELD) } else { Ok((lba, blocks)) }
}

fn lba6(c: &[u8; 16]) -> u64 {
    u64::from(u32::from_be_bytes([0, c[1] & 0x1F, c[2], c[3]]))
}

/// Returns the block count of a 6-byte CDB, in which 0 means 256.
fn blocks6(c: &[u8; 16]) -> u32 {
    if c[4] == 0 { 256 } else { c[4].into() }
}
