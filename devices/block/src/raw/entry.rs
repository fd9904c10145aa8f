//! A system call as an entry of a ring.

use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{opcode, squeue};

use super::call::{Call, Memory, Way};
use super::fixed::FixedMemory;

/// The indices of the files that are registered with each ring.
pub(super) const CACHED: Fixed = Fixed(0);
pub(super) const DIRECT: Fixed = Fixed(1);
pub(super) const FLUSHED: Fixed = Fixed(2);

/// An entry for a ring's submission queue.
pub(super) struct Entry {
    pub(super) entry: squeue::Entry,
    /// Whether the entry uses registered memory.
    pub(super) fixed: bool,
}

/// Returns the ring's entry for `call`. `None`: the ring has no such operation. `fixed`: the memory
/// that is registered with the ring. `nowait`: a write fails with EAGAIN if it would have to wait.
///
/// # Safety
/// The call's memory is valid.
pub(super) unsafe fn entry(call: Call, fixed: Option<&FixedMemory>, nowait: bool) -> Option<Entry> {
    let index = match call {
        Call::Read { memory, .. } | Call::Write { memory, .. } => {
            // SAFETY: the caller guarantees it.
            fixed.and_then(|fixed| unsafe { find(fixed, memory) })
        }
        _ => None,
    };
    let entry = match call {
        Call::Read { memory, offset, way } => read(memory, offset, way, index),
        Call::Write { memory, offset, way, durable } => {
            let durable = if durable { libc::RWF_DSYNC } else { 0 };
            let flags = durable | if nowait { libc::RWF_NOWAIT } else { 0 };
            write(memory, offset, way, flags, index)
        }
        Call::Sync => opcode::Fsync::new(FLUSHED).flags(FsyncFlags::DATASYNC).build(),
        Call::Allocate { mode, offset, length } => {
            opcode::Fallocate::new(CACHED, length).offset(offset).mode(mode).build()
        }
        Call::DiscardBlocks { .. } => return None,
    };
    Some(Entry { entry, fixed: index.is_some() })
}

/// Returns the number of the registered buffer that contains all of `memory`, if there is one.
///
/// # Safety
/// `memory` is valid.
unsafe fn find(fixed: &FixedMemory, memory: Memory) -> Option<u16> {
    match memory {
        Memory::One(base, len) => fixed.find(base, len as usize),
        Memory::Many(pieces, count) => {
            // SAFETY: the caller's iovecs, `count` of them.
            let pieces = unsafe { std::slice::from_raw_parts(pieces, count as usize) };
            fixed.find_all(pieces)
        }
    }
}

fn read(memory: Memory, offset: u64, way: Way, index: Option<u16>) -> squeue::Entry {
    let file = file(way);
    match (memory, index) {
        (Memory::One(base, len), Some(index)) => {
            opcode::ReadFixed::new(file, base, len, index).offset(offset).build()
        }
        (Memory::One(base, len), None) => opcode::Read::new(file, base, len).offset(offset).build(),
        (Memory::Many(pieces, count), Some(index)) => {
            opcode::ReadvFixed::new(file, pieces, count, index).offset(offset).build()
        }
        (Memory::Many(pieces, count), None) => {
            opcode::Readv::new(file, pieces, count).offset(offset).build()
        }
    }
}

fn write(memory: Memory, offset: u64, way: Way, flags: i32, index: Option<u16>) -> squeue::Entry {
    let file = file(way);
    match (memory, index) {
        (Memory::One(base, len), Some(index)) => {
            opcode::WriteFixed::new(file, base, len, index).offset(offset).rw_flags(flags).build()
        }
        (Memory::One(base, len), None) => {
            opcode::Write::new(file, base, len).offset(offset).rw_flags(flags).build()
        }
        (Memory::Many(pieces, count), Some(index)) => {
            opcode::WritevFixed::new(file, pieces, count, index)
                .offset(offset)
                .rw_flags(flags)
                .build()
        }
        (Memory::Many(pieces, count), None) => {
            opcode::Writev::new(file, pieces, count).offset(offset).rw_flags(flags).build()
        }
    }
}

fn file(way: Way) -> Fixed {
    match way {
        Way::Cached => CACHED,
        Way::Direct => DIRECT,
    }
}
