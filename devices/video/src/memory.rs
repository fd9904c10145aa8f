//! The interface to video memory, and memory for a host without a guest.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use vm_memory::{MmapRegion, VolatileMemory, VolatileSlice};

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

/// Video memory of this process alone, for tests and measurements. No guest sees it; it records
/// where a guest wants it.
#[derive(Debug)]
pub struct PrivateMemory {
    region: MmapRegion,
    window: Range<u64>,
    address: Mutex<Option<u64>>,
}

impl PrivateMemory {
    /// Returns `bytes` bytes that guests may place in `window`, a range of guest physical
    /// addresses.
    ///
    /// # Errors
    /// The host has too little memory.
    pub fn new(bytes: usize, window: Range<u64>) -> std::io::Result<Self> {
        let region = MmapRegion::new(bytes).map_err(std::io::Error::other)?;
        Ok(Self { region, window, address: Mutex::default() })
    }

    /// Returns where a guest wants it.
    pub fn address(&self) -> Option<u64> {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VideoMemory for PrivateMemory {
    fn bytes(&self) -> VolatileSlice<'_> {
        self.region.as_volatile_slice()
    }

    fn place(&self, address: Option<u64>) -> Result<(), PlaceError> {
        if let Some(address) = address.filter(|one| !self.window.contains(one)) {
            return Err(PlaceError::Outside(address));
        }
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = address;
        Ok(())
    }
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
