//! The two headers. The newer sound one is in force.

use zerocopy::{FromBytes, IntoBytes};

use super::layout::{HEADER_SIZE, HEADERS, Header, MIB, NO_GUID, is_sealed, seal};
use crate::error::Flaw;
use crate::file::ImageFile;

/// The header in force, and its index.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) header: Header,
    slot: usize,
}

impl Current {
    /// Reads both headers.
    pub(super) fn read(file: &ImageFile) -> Result<Self, Flaw> {
        let mut best: Option<Self> = None;
        for (slot, offset) in HEADERS.into_iter().enumerate() {
            let mut bytes = [0; HEADER_SIZE];
            file.read(&mut bytes, offset)?;
            let Ok((header, _)) = Header::read_from_prefix(&bytes) else { continue };
            if &header.signature != b"head" || !is_sealed(&bytes) {
                continue;
            }
            match &best {
                Some(best) if best.header.sequence >= header.sequence => {}
                _ => best = Some(Self { header, slot }),
            }
        }
        let current =
            best.ok_or_else(|| Flaw::damaged("neither of its two headers has a correct checksum"))?;
        current.check(file.len()?)?;
        Ok(current)
    }

    fn check(&self, file: u64) -> Result<(), Flaw> {
        let header = &self.header;
        if header.version.get() != 1 {
            let reason = format!("it is a VHDX of version {}", header.version);
            return Err(Flaw::unsupported(
                reason,
                "convert it to version 1 with the program that made it",
            ));
        }
        if header.log == NO_GUID && header.log_length.get() == 0 {
            return Ok(());
        }
        if header.log_version.get() != 0 {
            let reason = format!("its log has version {}", header.log_version);
            return Err(Flaw::unsupported(
                reason,
                "close it properly in the program that used it last",
            ));
        }
        let (offset, length) = (header.log_offset.get(), u64::from(header.log_length.get()));
        let end = offset.checked_add(length);
        if offset < MIB
            || offset % MIB != 0
            || length == 0
            || length % MIB != 0
            || end.is_none_or(|end| end > file)
        {
            return Err(Flaw::damaged(format!(
                "its log ({length} bytes at {offset}) does not lie in the file"
            )));
        }
        Ok(())
    }

    /// Replaces the older header, which is then in force. The other header stays sound throughout.
    pub(super) fn update(
        &mut self,
        file: &ImageFile,
        change: impl FnOnce(&mut Header),
    ) -> std::io::Result<()> {
        let mut header = self.header;
        change(&mut header);
        header.sequence = (header.sequence.get().wrapping_add(1)).into();
        let slot = 1 - self.slot;
        let mut bytes = [0; HEADER_SIZE];
        bytes[..size_of::<Header>()].copy_from_slice(header.as_bytes());
        seal(&mut bytes);
        file.write(&bytes, HEADERS[slot])?;
        file.sync()?;
        *self = Self { header, slot };
        // No code uses the checksum of the header in memory.
        Ok(())
    }
}
