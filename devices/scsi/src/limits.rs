//! Every limit of the SCSI commands, with its reason. `docs/limits.md` has the same table.

/// Most bytes that one WRITE SAME or VERIFY with one block covers; told in VPD page 0xB0. Zeroing
/// is one request to the backend, but any other block is really written: so much takes well below
/// the guest's time-out even on slow media.
pub(super) const MAX_WRITE_SAME: u64 = 32 << 20;

/// Most descriptors of one UNMAP, told in VPD page 0xB0: what a parameter list of 65,535 bytes has
/// room for after its header.
pub(super) const MAX_UNMAP_DESCRIPTORS: u32 = (super::Parameters::MAX as u32 - 8) / 16;

/// Most descriptors of one GET LBA STATUS answer: each may ask the file system. Guests ask again
/// from where the answer ends.
pub(super) const MAX_LBA_DESCRIPTORS: u32 = 256;
