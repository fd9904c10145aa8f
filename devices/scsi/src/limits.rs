//! Every limit of the SCSI commands, with its reason. `docs/limits.md` has the same table.

/// Most bytes that one WRITE SAME or VERIFY with one block covers, reported in VPD page 0xB0.
/// Zeroing is one request to the backend, but any other block is written in full. Writing this many
/// bytes takes well below the guest's timeout even on slow disks.
pub(super) const MAX_WRITE_SAME: u64 = 32 << 20;

/// Most descriptors of one UNMAP, reported in VPD page 0xB0: as many as fit into a parameter list
/// of 65,535 bytes after its header.
pub(super) const MAX_UNMAP_DESCRIPTORS: u32 = (super::Parameters::MAX as u32 - 8) / 16;

/// Most descriptors of one GET LBA STATUS answer, because each may need a call of the file system.
/// Guests ask again from the end of the answer.
pub(super) const MAX_LBA_DESCRIPTORS: u32 = 256;
