//! What a command comes to: what the disk tells whoever moves the bytes.

use synthvm_block::Operation;

use super::ModeForm;
use super::reservation::ReserveOut;

/// The data phase that the guest's port driver announced: direction and bytes of buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// No data, or a direction that the guest did not state.
    None,
    /// Disk to guest ("data in").
    ToGuest(u32),
    /// Guest to disk ("data out").
    ToDisk(u32),
}

impl Transfer {
    /// Bytes of buffer in either direction.
    pub const fn length(self) -> u32 {
        match self {
            Self::None => 0,
            Self::ToGuest(length) | Self::ToDisk(length) => length,
        }
    }
}

/// What a command comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Success without data.
    Good,
    /// Success: the answer is in the reply buffer, cut to what the guest has room for.
    Reply,
    /// One request to the medium.
    Io(Io),
    /// Several requests to the medium, which the guest sees as one.
    Job(Box<Job>),
    /// Make everything written so far durable.
    Flush,
    /// Read this many bytes from the guest's buffer (they are there) and ask
    /// [`super::Disk::parameters`].
    Parameters(Parameters),
    /// Ask the medium which blocks take up room, and word the answer by [`super::lba_status`].
    LbaStatus(LbaQuery),
    /// Success: the guest took the disc out of the drive. Whoever holds its image lets it go.
    Ejected,
    /// RESERVATION CONFLICT: a status of its own, without sense data.
    Conflict,
}

/// One request to the medium: within the disk, never empty; within the guest's buffer where it
/// moves bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// The operation; never a flush.
    pub operation: Operation,
    /// Where.
    pub range: Range,
}

/// Bytes of the medium: whole blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

/// A command that takes more than one request. It fails with the first of them that does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Discard all of these; none is empty.
    Discard(Vec<Range>),
    /// Write `block` into every block of `range`.
    Fill {
        /// Where.
        range: Range,
        /// One block's bytes.
        block: Box<[u8]>,
    },
    /// Compare `range` with what the guest says must be there: E/1D/00 when it is not.
    Compare {
        /// Where.
        range: Range,
        /// What must be there.
        expected: Expected,
        /// First write the guest's buffer there, durably.
        write: bool,
    },
}

/// What a comparison expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The guest's buffer, byte by byte.
    Buffer,
    /// This block in every block.
    Block(Box<[u8]>),
}

/// GET LBA STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LbaQuery {
    /// Up to the end of the disk.
    pub range: Range,
    /// Most descriptors that the guest has room for.
    pub descriptors: u32,
    /// Bytes that the guest has room for.
    pub room: u32,
}

/// A parameter list that the guest sends along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    pub(super) length: u32,
    pub(super) kind: ParametersKind,
}

/// Whose parameter list it is.
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
    /// Whatever it says.
    Ignored,
}

impl Parameters {
    /// Bytes to read from the guest's buffer: at most [`Parameters::MAX`].
    pub fn length(self) -> usize {
        self.length as usize
    }

    /// Longest parameter list: what 16 bits can say.
    pub const MAX: usize = 0xFFFF;
}
