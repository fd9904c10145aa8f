//! UNMAP, WRITE SAME and GET LBA STATUS: allocated blocks, and blocks with one content (spec
//! storvsc sections 6.4 and 6.5).

use synthvm_block::{BlockSize, Extent, Operation};

use super::decision::ParametersKind;
use super::fields::{be16, be32, be64};
use super::limits::{MAX_LBA_DESCRIPTORS, MAX_WRITE_SAME};
use super::{
    CheckCondition, Decision, Disk, Io, Job, LbaQuery, Parameters, Range, Sense, Transfer,
};

const UNMAP_HEADER: usize = 8;
const UNMAP_DESCRIPTOR: usize = 16;
const STATUS_HEADER: u32 = 8;
const STATUS_DESCRIPTOR: u32 = 16;

/// Provisioning status of GET LBA STATUS.
const MAPPED: u8 = 0;
const DEALLOCATED: u8 = 1;

/// Completion conditions of GET LBA STATUS, in bits 3:1 of byte 7 (SBC-4): the answer ended for
/// lack of space, or with the disk. 0 says neither. RTP, bit 0, stays 0, because no REPORT TYPE
/// narrows the answer.
const ENDED_BY_ALLOCATION: u8 = 1 << 1;
const ENDED_BY_CAPACITY: u8 = 3 << 1;

impl Disk {
    /// Decides UNMAP. A list that is too short for its own header is refused; an empty list is
    /// valid.
    pub(super) fn unmap(
        &self,
        length: u16,
        transfer: Transfer,
    ) -> Result<Decision, CheckCondition> {
        if self.discard().is_none() {
            return Err(CheckCondition::INVALID_OPCODE);
        }
        self.check_writable()?;
        match transfer {
            _ if length == 0 => Ok(Decision::Good),
            _ if usize::from(length) < UNMAP_HEADER => {
                Err(CheckCondition::invalid(Sense::PARAMETER_LIST_LENGTH))
            }
            Transfer::ToDisk(room) if room >= length.into() => {
                Ok(Decision::Parameters(Parameters {
                    length: length.into(),
                    kind: ParametersKind::Unmap,
                }))
            }
            _ => Err(CheckCondition::INVALID_FIELD),
        }
    }

    /// Checks UNMAP's list as a whole, so that an invalid one discards nothing. A descriptor that
    /// the end of the list, or the length stated in it, cuts short is ignored (SBC-3 section
    /// 5.30.2).
    pub(super) fn unmap_list(&self, list: &[u8]) -> Result<Decision, CheckCondition> {
        let descriptors = &list[UNMAP_HEADER..];
        let stated = usize::from(be16(list, 2));
        let descriptors = &descriptors[..stated.min(descriptors.len())];
        let mut ranges = Vec::new();
        for descriptor in descriptors.chunks_exact(UNMAP_DESCRIPTOR) {
            let (lba, blocks) = (be64(descriptor, 0), be32(descriptor, 8));
            self.check_range(lba, blocks)?;
            if blocks != 0 {
                ranges.push(self.range(lba, blocks));
            }
        }
        Ok(match *ranges {
            [] => Decision::Good,
            // Linux always sends one range.
            [range] => Decision::Io(Io { operation: Operation::Discard, range }),
            _ => Decision::Job(Box::new(Job::Discard(ranges))),
        })
    }

    /// Decides WRITE SAME. `data`: the guest sends the block; without it the block is zero.
    pub(super) fn write_same(
        &self,
        (lba, blocks): (u64, u32),
        unmap: bool,
        data: bool,
        transfer: Transfer,
    ) -> Result<Decision, CheckCondition> {
        self.check_writable()?;
        self.check_same_length(blocks)?;
        self.check_range(lba, blocks)?;
        let range = self.range(lba, blocks);
        if unmap && self.discard().is_none() {
            return Err(CheckCondition::INVALID_FIELD);
        }
        if data {
            self.one_block(ParametersKind::WriteSame { range, unmap }, transfer)
        } else {
            Ok(Decision::Io(Io { operation: Operation::WriteZeroes { unmap }, range }))
        }
    }

    /// Decides a WRITE SAME with its block. A zero block needs no data transfer, and only a zero
    /// block may be unmapped: unmapped blocks would not read back as any other.
    pub(super) fn write_same_block(&self, range: Range, unmap: bool, block: &[u8]) -> Decision {
        if block.iter().all(|&byte| byte == 0) {
            Decision::Io(Io { operation: Operation::WriteZeroes { unmap }, range })
        } else {
            Decision::Job(Box::new(Job::Fill { range, block: block.into() }))
        }
    }

    /// Decides GET LBA STATUS of the blocks from `lba` on. An allocation length that cuts the first
    /// descriptor short is no error (SPC-4 section 4.2.5.6).
    pub(super) fn lba_status(
        &self,
        lba: u64,
        allocation: u32,
        transfer: Transfer,
        out: &mut Vec<u8>,
    ) -> Result<Decision, CheckCondition> {
        self.check_range(lba, 1)?;
        let buffer = match transfer {
            Transfer::ToGuest(buffer) => buffer,
            Transfer::None if allocation == 0 => return Ok(Decision::Good),
            _ => return Err(CheckCondition::OVERRUN),
        };
        let room = allocation.min(buffer);
        let descriptors =
            (room.saturating_sub(STATUS_HEADER) / STATUS_DESCRIPTOR).clamp(1, MAX_LBA_DESCRIPTORS);
        let shift = self.block_size().shift();
        let offset = lba << shift;
        // The disk may have shrunk since its range was checked. The query then keeps at least one
        // block.
        let length = self.capacity().saturating_sub(offset).max(1 << shift);
        let query = LbaQuery { range: Range { offset, length }, descriptors, room };
        if self.discard().is_some() {
            return Ok(Decision::LbaStatus(query));
        }
        // On a disk without provisioning every block is mapped, even blocks that its image does not
        // store.
        let mapped = |_| Ok::<_, CheckCondition>(Extent { length, mapped: true });
        lba_status(query, self.block_size(), mapped, out)?;
        Ok(Decision::Reply)
    }

    /// Asks for the block that `kind` needs. The command transfers exactly one block.
    pub(super) fn one_block(
        &self,
        kind: ParametersKind,
        transfer: Transfer,
    ) -> Result<Decision, CheckCondition> {
        let length = self.block_size().bytes();
        match transfer {
            Transfer::ToDisk(room) if room == length => {
                Ok(Decision::Parameters(Parameters { length, kind }))
            }
            _ => Err(CheckCondition::INVALID_FIELD),
        }
    }

    /// Checks the count of a command that repeats one block: 0 (WSNZ) and more than page 0xB0
    /// states are refused.
    pub(super) fn check_same_length(&self, blocks: u32) -> Result<(), CheckCondition> {
        let bytes = u64::from(blocks) << self.block_size().shift();
        if (1..=MAX_WRITE_SAME).contains(&bytes) {
            Ok(())
        } else {
            Err(CheckCondition::INVALID_FIELD)
        }
    }

    fn check_writable(&self) -> Result<(), CheckCondition> {
        if self.is_read_only() {
            Err(CheckCondition::execution(Sense::WRITE_PROTECTED))
        } else {
            Ok(())
        }
    }
}

/// Formats the answer to GET LBA STATUS; `extent` returns the backend's extent at an offset. A
/// block that is partly in use counts as in use, and neighbours of one state share a descriptor.
/// The number of descriptors asked for bounds the work. The first descriptor begins at the block
/// asked about, and there is always one.
///
/// # Errors
/// The first error of `extent`.
pub fn lba_status<E>(
    query: LbaQuery,
    block_size: BlockSize,
    mut extent: impl FnMut(u64) -> Result<Extent, E>,
    out: &mut Vec<u8>,
) -> Result<(), E> {
    let start = out.len();
    let (shift, block) = (block_size.shift(), u64::from(block_size.bytes()));
    let end = query.range.offset + query.range.length;
    let mut at = query.range.offset;
    out.extend_from_slice(&[0; STATUS_HEADER as usize]);
    let mut descriptors = Descriptors { shift, left: query.descriptors, end: at, out };
    // The first byte that has no descriptor yet, and its state.
    let mut open: Option<(u64, bool)> = None;
    // Neighbours of one state cost calls, but no descriptors.
    let mut calls = query.descriptors.saturating_mul(2);
    while at < end && descriptors.left > 0 && calls > 0 {
        calls -= 1;
        let found = extent(at)?;
        let stop = at.saturating_add(found.length).min(end);
        let whole = stop >> shift << shift;
        let (next, mapped) = match found.mapped {
            true => (stop.next_multiple_of(block).max(at + block), true),
            false if whole > at => (whole, false),
            false => (at + block, true),
        };
        if let Some((first, state)) = open
            && state != mapped
        {
            descriptors.put(first, at, state);
            open = None;
        }
        let (first, _) = *open.get_or_insert((at, mapped));
        at = next.min(end);
        // A descriptor counts at most 2^32 - 1 blocks.
        if (at - first) >> shift >= u64::from(u32::MAX) {
            descriptors.put(first, at, mapped);
            open = None;
        }
    }
    if let Some((first, state)) = open {
        descriptors.put(first, at, state);
    }
    let completion = match descriptors.left {
        _ if descriptors.end >= end => ENDED_BY_CAPACITY,
        0 => ENDED_BY_ALLOCATION,
        _ => 0,
    };
    // The length field does not count itself.
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    out[start + 7] = completion;
    out.truncate(start + query.room as usize);
    Ok(())
}

/// The descriptors of one answer.
struct Descriptors<'a> {
    /// Log2 of the bytes of a block.
    shift: u32,
    /// Descriptors that still fit into the answer.
    left: u32,
    /// The end of the last block described.
    end: u64,
    out: &'a mut Vec<u8>,
}

impl Descriptors<'_> {
    /// Adds the bytes from `first` to `end`, which have one state, in as many descriptors as their
    /// 32-bit counts need and the space allows.
    fn put(&mut self, first: u64, end: u64, mapped: bool) {
        let (mut lba, end) = (first >> self.shift, end >> self.shift);
        while lba < end && self.left > 0 {
            let blocks = u32::try_from(end - lba).unwrap_or(u32::MAX);
            self.out.extend_from_slice(&lba.to_be_bytes());
            self.out.extend_from_slice(&blocks.to_be_bytes());
            self.out.extend_from_slice(&[if mapped { MAPPED } else { DEALLOCATED }, 0, 0, 0]);
            lba += u64::from(blocks);
            self.left -= 1;
        }
        self.end = lba << self.shift;
    }
}
