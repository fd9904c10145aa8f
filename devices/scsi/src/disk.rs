//! A disk, which decides SCSI commands.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use synthvm_block::{BlockSize, Discard, Geometry, Operation};

use super::decision::ParametersKind;
use super::reservation::{LIST_LEN, Reservations, Verdict};
use super::{
    CheckCondition, Command, Decision, DiskIdentity, Expected, Io, Job, ModeForm, Parameters,
    Range, Sense, Transfer, capacity, inquiry, mode, vpd,
};
use crate::saved::SavedDisk;

/// The error for a backend whose capacity is less than one block. Its value: the bytes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a disk needs at least one block of {0} bytes")]
pub struct DiskTooSmall(pub u32);

/// A disk without its backend: it takes commands and returns decisions. The workers of all channels
/// share it.
#[derive(Debug)]
pub struct Disk {
    identity: DiskIdentity,
    blocks: AtomicU64,
    block_size: BlockSize,
    physical_exponent: u8,
    read_only: bool,
    write_cache: bool,
    rotational: bool,
    max_transfer: u32,
    discard: Option<Discard>,
    capacity_changed: AtomicBool,
    reservations: Mutex<Reservations>,
}

impl Disk {
    /// Returns a disk that a guest recognises by `identity`, with a backend of `geometry` and
    /// requests of at most `max_transfer` bytes. The guest cannot reach a last block that is
    /// incomplete. A read-only disk has no write cache.
    ///
    /// # Errors
    /// The capacity is less than one block.
    pub fn new(
        identity: DiskIdentity,
        geometry: Geometry,
        max_transfer: u32,
    ) -> Result<Self, DiskTooSmall> {
        let block = geometry.block_size.bytes();
        let blocks = geometry.capacity >> geometry.block_size.shift();
        if blocks == 0 {
            return Err(DiskTooSmall(block));
        }
        let ratio = (geometry.physical_block_size / block).max(1);
        // The field has 4 bits, and guests gain nothing from a hint above 32 KiB.
        let physical_exponent = ratio.ilog2().min(6) as u8;
        Ok(Self {
            identity,
            blocks: AtomicU64::new(blocks),
            block_size: geometry.block_size,
            physical_exponent,
            read_only: geometry.read_only,
            write_cache: geometry.write_cache && !geometry.read_only,
            rotational: geometry.rotational,
            max_transfer,
            discard: geometry.discard,
            capacity_changed: AtomicBool::new(false),
            reservations: Mutex::default(),
        })
    }

    /// Changes the size. Each call is reported to the guest once, by the next command that can
    /// report it (unit attention 6/2A/09).
    pub fn resize(&self, capacity: u64) {
        let blocks = (capacity >> self.block_size.shift()).max(1);
        if self.blocks.swap(blocks, Ordering::AcqRel) != blocks {
            self.capacity_changed.store(true, Ordering::Release);
        }
    }

    /// Returns the state that another process needs to resume with this disk.
    pub(crate) fn saved(&self) -> SavedDisk {
        SavedDisk {
            block_size: self.block_size.bytes(),
            blocks: self.blocks.load(Ordering::Acquire),
            read_only: self.read_only,
            write_cache: self.write_cache,
            capacity_changed: self.capacity_changed.load(Ordering::Acquire),
            reservations: self.reservations().saved(),
        }
    }

    /// Checks that this disk can resume from `saved`.
    ///
    /// # Errors
    /// The difference that the guest would notice.
    pub(crate) fn check(&self, saved: &SavedDisk) -> Result<(), &'static str> {
        match saved {
            _ if saved.block_size != self.block_size.bytes() => Err("its block size differs"),
            _ if saved.read_only != self.read_only => {
                Err("one of the two is read-only and the other is not")
            }
            _ if saved.write_cache != self.write_cache => {
                Err("one of the two has a write cache and the other does not")
            }
            _ if Reservations::restored(saved.reservations).is_none() => {
                Err("its saved reservations are inconsistent")
            }
            _ => Ok(()),
        }
    }

    /// Resumes from `saved`, for which [`Disk::check`] has succeeded. A size that differs from the
    /// saved one is reported to the guest.
    pub(crate) fn restore(&self, saved: &SavedDisk) {
        if let Some(reservations) = Reservations::restored(saved.reservations) {
            *self.reservations() = reservations;
        }
        let changed = saved.capacity_changed || saved.blocks != self.blocks.load(Ordering::Acquire);
        self.capacity_changed.store(changed, Ordering::Release);
    }

    /// Decides one command. The answer is appended to `out`, which the caller empties and reuses.
    ///
    /// # Errors
    /// The check condition to report; `out` is then unchanged.
    pub fn execute(
        &self,
        command: Command,
        transfer: Transfer,
        out: &mut Vec<u8>,
    ) -> Result<Decision, CheckCondition> {
        if self.takes_unit_attention(command) {
            return Err(CheckCondition::execution(Sense::CAPACITY_CHANGED));
        }
        match command {
            Command::TestUnitReady
            | Command::Reservation
            | Command::SendDiagnostic
            | Command::PreventAllow
            | Command::StartStop { flush: false } => Ok(Decision::Good),
            Command::StartStop { flush: true } => Ok(self.flush()),
            Command::SynchronizeCache { lba, blocks } => {
                self.check_range(lba, blocks)?;
                Ok(self.flush())
            }
            Command::Read { lba, blocks } => self.io(Operation::Read, lba, blocks, transfer),
            Command::Write { lba, blocks, fua } => {
                self.io(Operation::Write { fua }, lba, blocks, transfer)
            }
            Command::WriteAndVerify { lba, blocks, compare } => {
                self.write_and_verify((lba, blocks), compare, transfer)
            }
            Command::Verify { lba, blocks, check } => self.verify((lba, blocks), check, transfer),
            Command::Unmap { length } => self.unmap(length, transfer),
            Command::WriteSame { lba, blocks, unmap, data } => {
                self.write_same((lba, blocks), unmap, data, transfer)
            }
            Command::GetLbaStatus { lba, allocation } => {
                self.lba_status(lba, allocation, transfer, out)
            }
            Command::PersistentReserveOut { what, length } => {
                let kind = ParametersKind::Reserve(what);
                match transfer {
                    Transfer::ToDisk(room) if length == LIST_LEN && room >= length => {
                        Ok(Decision::Parameters(Parameters { length, kind }))
                    }
                    _ => Err(CheckCondition::invalid(Sense::PARAMETER_LIST_LENGTH)),
                }
            }
            Command::ModeSelect { form, length } => self.mode_select(form, length, transfer),
            _ => self.answer(command, transfer, out),
        }
    }

    /// Decides a command with the parameter list that [`Decision::Parameters`] asked for.
    ///
    /// # Errors
    /// The check condition to report.
    pub fn parameters(&self, of: Parameters, list: &[u8]) -> Result<Decision, CheckCondition> {
        match of.kind {
            ParametersKind::ModeSelect(form) => {
                mode::select(self, form, list).map(|()| Decision::Good)
            }
            ParametersKind::Ignored => Ok(Decision::Good),
            ParametersKind::Unmap => self.unmap_list(list),
            ParametersKind::WriteSame { range, unmap } => {
                Ok(self.write_same_block(range, unmap, list))
            }
            ParametersKind::Verify(range) => {
                let expected = Expected::Block(list.into());
                Ok(Decision::Job(Box::new(Job::Compare { range, expected, write: false })))
            }
            ParametersKind::Reserve(what) => Ok(match self.reservations().execute(what, list)? {
                Verdict::Good => Decision::Good,
                Verdict::Conflict => Decision::Conflict,
            }),
        }
    }

    /// Returns the names by which a guest recognises the disk.
    pub fn identity(&self) -> &DiskIdentity {
        &self.identity
    }

    /// Returns the logical block size.
    pub fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// Returns the size in bytes, as the guest sees it.
    pub fn capacity(&self) -> u64 {
        self.blocks.load(Ordering::Acquire) << self.block_size.shift()
    }

    /// Returns whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn last_lba(&self) -> u64 {
        self.blocks.load(Ordering::Acquire) - 1
    }

    pub(super) fn physical_exponent(&self) -> u8 {
        self.physical_exponent
    }

    pub(super) fn has_write_cache(&self) -> bool {
        self.write_cache
    }

    pub(super) fn is_rotational(&self) -> bool {
        self.rotational
    }

    pub(super) fn max_transfer_blocks(&self) -> u32 {
        self.max_transfer >> self.block_size.shift()
    }

    pub(super) fn discard(&self) -> Option<Discard> {
        self.discard
    }

    fn reservations(&self) -> MutexGuard<'_, Reservations> {
        self.reservations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the commands whose whole result is a few bytes for the guest.
    fn answer(
        &self,
        command: Command,
        transfer: Transfer,
        out: &mut Vec<u8>,
    ) -> Result<Decision, CheckCondition> {
        let Transfer::ToGuest(room) = transfer else {
            return self.answer_without_room(command, transfer);
        };
        let start = out.len();
        let limit = match command {
            Command::RequestSense { allocation } => {
                let changed = self.capacity_changed.swap(false, Ordering::AcqRel);
                let sense = if changed { Sense::CAPACITY_CHANGED } else { Sense::NONE };
                out.extend_from_slice(&sense.to_fixed());
                u32::from(allocation)
            }
            Command::Inquiry { page, allocation } => {
                if u32::from(allocation) > room {
                    return Err(CheckCondition::INVALID_FIELD);
                }
                match page {
                    Some(page) => vpd::page(self, page, out)?,
                    None => out.extend_from_slice(&inquiry::standard()),
                }
                u32::from(allocation)
            }
            Command::ModeSense { form, control, page, subpage, allocation } => {
                mode::sense(self, form, control, (page, subpage), out)?;
                u32::from(allocation)
            }
            Command::ReadCapacity10 => {
                if room < 8 {
                    return Err(CheckCondition::OVERRUN);
                }
                capacity::read_capacity_10(self, out);
                8
            }
            Command::ReadCapacity16 { allocation } => {
                capacity::read_capacity_16(self, out);
                allocation
            }
            Command::PersistentReserveIn { what, allocation } => {
                self.reservations().report(what, &self.identity.guid, out);
                u32::from(allocation)
            }
            // The controller answers REPORT LUNS, and `execute` has decided all other commands.
            _ => return Err(CheckCondition::INVALID_OPCODE),
        };
        out.truncate(start + limit.min(room) as usize);
        Ok(Decision::Reply)
    }

    /// Answers the same commands for a guest that sent no buffer. They succeed if the guest asked
    /// for 0 bytes.
    fn answer_without_room(
        &self,
        command: Command,
        transfer: Transfer,
    ) -> Result<Decision, CheckCondition> {
        match command {
            _ if transfer.length() != 0 => Err(CheckCondition::INVALID_FIELD),
            Command::RequestSense { allocation: 0 }
            | Command::Inquiry { page: None, allocation: 0 }
            | Command::ModeSense { allocation: 0, .. }
            | Command::ReadCapacity16 { allocation: 0 }
            | Command::PersistentReserveIn { allocation: 0, .. } => Ok(Decision::Good),
            Command::Inquiry { .. } => Err(CheckCondition::INVALID_FIELD),
            _ => Err(CheckCondition::OVERRUN),
        }
    }

    fn mode_select(
        &self,
        form: ModeForm,
        length: u16,
        transfer: Transfer,
    ) -> Result<Decision, CheckCondition> {
        match transfer {
            _ if length == 0 => Ok(Decision::Good),
            Transfer::ToDisk(room) if room >= length.into() => {
                Ok(Decision::Parameters(Parameters {
                    length: length.into(),
                    kind: ParametersKind::ModeSelect(form),
                }))
            }
            Transfer::ToGuest(_) => Err(CheckCondition::INVALID_FIELD),
            _ => Err(CheckCondition::invalid(Sense::PARAMETER_LIST_LENGTH)),
        }
    }

    pub(super) fn io(
        &self,
        operation: Operation,
        lba: u64,
        blocks: u32,
        transfer: Transfer,
    ) -> Result<Decision, CheckCondition> {
        if self.read_only && operation != Operation::Read {
            return Err(CheckCondition::execution(Sense::WRITE_PROTECTED));
        }
        self.check_range(lba, blocks)?;
        if blocks == 0 {
            return Ok(Decision::Good);
        }
        let room = match (operation, transfer) {
            (Operation::Read, Transfer::ToGuest(room))
            | (Operation::Write { .. }, Transfer::ToDisk(room)) => room,
            _ => return Err(CheckCondition::INVALID_FIELD),
        };
        let range = self.range(lba, blocks);
        if range.length > room.into() {
            return Err(self.does_not_fit(blocks));
        }
        Ok(Decision::Io(Io { operation, range }))
    }

    /// Returns the reason to refuse a transfer of `blocks` that the guest's buffer does not hold. A
    /// transfer above the MAXIMUM TRANSFER LENGTH of page 0xB0 is an invalid CDB in itself (SBC-3
    /// section 6.6.4).
    pub(super) fn does_not_fit(&self, blocks: u32) -> CheckCondition {
        if blocks > self.max_transfer_blocks() {
            CheckCondition::INVALID_FIELD
        } else {
            CheckCondition::OUT_OF_BUFFER
        }
    }

    /// Returns the bytes of blocks that are on the disk.
    pub(super) fn range(&self, lba: u64, blocks: u32) -> Range {
        let shift = self.block_size.shift();
        Range { offset: lba << shift, length: u64::from(blocks) << shift }
    }

    /// Checks that all `blocks` from `lba` on are on the disk.
    pub(super) fn check_range(&self, lba: u64, blocks: u32) -> Result<(), CheckCondition> {
        let end = lba.checked_add(blocks.into());
        let inside = end.is_some_and(|end| end <= self.blocks.load(Ordering::Acquire));
        if inside { Ok(()) } else { Err(CheckCondition::OUT_OF_RANGE) }
    }

    /// Decides a flush. A disk without a write cache has no data to flush, but its backend may
    /// still hold metadata, so only a read-only disk skips the flush.
    fn flush(&self) -> Decision {
        if self.read_only { Decision::Good } else { Decision::Flush }
    }

    /// Returns whether `command` reports a changed capacity, which ends that unit attention.
    ///
    /// INQUIRY and REPORT LUNS never report one, and REQUEST SENSE returns it as data (SAM-5
    /// section 5.14). MODE SENSE does not report one either, against SAM: Linux's storvsc driver
    /// takes a failed MODE SENSE for an empty answer, and its disk driver then treats the disk as
    /// one without a write cache and sends no more flushes. The attention stays pending until a
    /// command whose failure the guest sees.
    fn takes_unit_attention(&self, command: Command) -> bool {
        let silent = matches!(
            command,
            Command::Inquiry { .. }
                | Command::ReportLuns { .. }
                | Command::RequestSense { .. }
                | Command::ModeSense { .. }
        );
        // The load keeps the shared cache line unwritten in the path of every I/O, and the swap
        // lets only one worker report the change.
        !silent
            && self.capacity_changed.load(Ordering::Relaxed)
            && self.capacity_changed.swap(false, Ordering::AcqRel)
    }
}
