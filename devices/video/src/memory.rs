//! The interface to video memory.

use vm_memory::VolatileSlice;

/// Video memory: bytes that the host has always mapped, and that guests see where they ask for it.
pub trait VideoMemory: Send + Sync {
    /// Returns all bytes. The guest may change them at any time.
    fn bytes(&self) -> VolatileSlice<'_>;

    /// Makes the bytes visible to the guest from the guest physical address `address` on, and no
    /// longer elsewhere. `None`: nowhere. The address is a multiple of 4 KiB.
    ///
    /// # Errors
    /// [`PlaceError`]: the bytes are where they were.
    fn place(&self, address: Option<u64>) -> Result<(), PlaceError>;
}

/// The error of an address at which video memory cannot be.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Not within a window for devices' memory.
    #[error("{0:#x} is in no window for the memory of devices")]
    Outside(u64),
    /// The host's error.
    #[error("the host refused: {0}")]
    Host(#[from] std::io::Error),
}
