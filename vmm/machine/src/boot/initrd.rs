//! The initial RAM disk, loaded unchanged at the top of low RAM, away from the kernel.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use vm_memory::{Bytes, GuestAddress};

use super::kernel::{Loaded, file_error, open_regular};
use super::{BootError, BootFile};
use crate::memory::{AddressRange, GuestMemory, MemoryLayout};

/// An initrd file, opened and found not empty.
#[derive(Debug)]
pub(crate) struct Initrd {
    path: PathBuf,
    file: File,
}

impl Initrd {
    /// Opens `path`.
    ///
    /// # Errors
    /// [`BootError::File`].
    pub(crate) fn open(path: &Path) -> Result<Initrd, BootError> {
        let (file, _) = open_regular(BootFile::Initrd, path)?;
        Ok(Initrd { path: path.to_owned(), file })
    }

    /// Loads the file as high as the kernel allows and returns its address.
    pub(super) fn load(
        &self,
        memory: &GuestMemory,
        layout: &MemoryLayout,
        kernel: &Loaded,
    ) -> Result<AddressRange, BootError> {
        let failed = |error: std::io::Error| file_error(BootFile::Initrd, &self.path, error);
        // The size is read again: the file may have been replaced in place since the last boot.
        let size = self.file.metadata().map_err(failed)?.size();
        let ram = layout.low_ram.end;
        let top = ram.min(kernel.initrd_limit);
        let start = top.checked_sub(size).map_or(0, |start| start & !0xFFF);
        if start < kernel.end {
            let needed = kernel.end.saturating_add(size.next_multiple_of(4096));
            return Err(BootError::MemoryForInitrd { ram, initrd: size, needed });
        }
        // A clone of the descriptor shares its offset, which the last boot left at the end.
        let mut reader = self.file.try_clone().map_err(failed)?;
        std::io::Seek::rewind(&mut reader).map_err(failed)?;
        memory
            .read_exact_volatile_from(GuestAddress(start), &mut reader, size as usize)
            .map_err(|error| failed(std::io::Error::other(error)))?;
        Ok(AddressRange { start, end: start + size })
    }
}
