//! The decisions of a logical unit, which its caller carries out.

use synthvm_block::Operation;

use super::ModeForm;
use super::reservation::ReserveOut;

/// The data phase that the guest's port driver announced: direction and bytes of buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// No data, or a guest that did not state a direction.
    None,
    /// Disk to guest ("data in").
    ToGuest(u32),
    /// Guest to disk ("data out").
    ToDisk(u32),
}

impl Transfer {
    /// Returns the bytes of the buffer, for either direction.
    pub const fn length(self) -> u32 {
        match self {
            Self::None => 0,
            Self::ToGuest(length) | Self::ToDisk(length) => length,
        }
    }
}

/// The outcome of a command, or the work that remains before there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Success without data.
    Good,
    /// Success: the answer is in the reply buffer, cut to the size of the guest's buffer.
    Reply,
    /// One request to the backend.
    Io(Io),
    /// A compound command: several requests to the backend, which the guest sees as one.
    Job(Box<Job>),
    /// A flush: all data written so far must become durable.
    Flush,
    /// A parameter list: the caller reads this many bytes from the guest's buffer, which has that
    /// many, and passes them to [`super::Disk::parameters`].
    Parameters(Parameters),
    /// A question to the backend about allocated blocks. [`super::lba_status`] formats the answer.
    LbaStatus(LbaQuery),
    /// Success: the guest ejected the disc. The owner of the disc's image must release it.
    Ejected,
    /// RESERVATION CONFLICT: a status of its own, without sense data.
    Conflict,
}

/// One request to the backend. It lies within the disk and is never empty; if it moves bytes, it
/// fits the guest's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// The operation; never a flush.
    pub operation: Operation,
    /// The bytes of the disk.
    pub range: Range,
}

/// A range of bytes of the disk, in whole blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The offset of the first byte.
    pub offset: u64,
    /// The number of bytes.
    pub length: u64,
}

/// A command that needs several requests. It fails with the first request that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Discards every range; none is empty.
    Discard(Vec<Range>),
    /// Writes `block` into every block of `range`.
    Fill {
        /// The blocks to write.
        range: Range,
        /// The bytes of one block.
        block: Box<[u8]>,
    },
    /// Compares `range` with the expected bytes. A difference is reported as E/1D/00.
    Compare {
        /// The blocks to compare.
        range: Range,
        /// The bytes that must be there.
        expected: Expected,
        /// The guest's buffer is first written to `range`, durably.
        write: bool,
    },
}

/// The expected bytes of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The guest's buffer, byte by byte.
    Buffer,
    /// The same block in every block of the range.
    Block(Box<[u8]>),
}

/// A GET LBA STATUS command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LbaQuery {
    /// The bytes from the first block asked about to the end of the disk.
    pub range: Range,
    /// Most descriptors that the guest's buffer can hold.
    pub descriptors: u32,
    /// Bytes of the answer that the guest's buffer can hold.
    pub room: u32,
}

/// A parameter list that the guest sends with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    pub(super) length: u32,
    pub(super) kind: ParametersKind,
}

/// The command to which a parameter list belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ParametersKind {
    ModeSelect(ModeForm),
    Unmap,
    /// The block of WRITE SAME.
    WriteSame {
        range: Range,
        unmap: bool,
    },
    /// The block of VERIFY with BYTCHK 3.
    Verify(Range),
    Reserve(ReserveOut),
    /// A list that is accepted and not read.
    Ignored,
}

impl Parameters {
    /// Returns the bytes to read from the guest's buffer: at most [`Parameters::MAX`].
    pub fn length(self) -> usize {
        self.length as usize
    }

    /// The longest parameter list: its length field has 16 bits.
    pub const MAX: usize = 0xFFFF;
}
