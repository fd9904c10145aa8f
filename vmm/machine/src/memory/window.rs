//! Memory of a device in an MMIO window, such as video memory: ordinary memory, which the guest
//! sees where its driver wants it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{MmapRegion, VolatileMemory, VolatileSlice};

use super::AddressRange;

/// Memory of a device. The host has it mapped all the time; the guest sees it at one place or at
/// none. Dropping it takes it from the guest.
pub struct WindowMemory {
    /// Dropped only after KVM has released it.
    mapping: Arc<MmapRegion>,
    windows: [AddressRange; 2],
    vm: Arc<VmFd>,
    slot: u32,
    place: Mutex<Option<u64>>,
}

/// The error of placing a device's memory.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// The memory would not lie within an MMIO window, at a page.
    #[error("{0:#x} is in no MMIO window, or does not leave enough space in it")]
    Outside(u64),
    /// KVM refused.
    #[error("KVM refused a memory slot: {0}")]
    Slot(#[source] io::Error),
}

impl WindowMemory {
    /// Allocates `bytes` of memory, in whole pages, which the guest sees nowhere yet. `slot`: the
    /// number of a KVM memory slot that nothing else uses.
    pub(crate) fn allocate(
        vm: Arc<VmFd>,
        windows: [AddressRange; 2],
        slot: u32,
        bytes: usize,
    ) -> io::Result<Self> {
        let mapping = MmapRegion::new(bytes).map_err(io::Error::other)?;
        Ok(Self { mapping: Arc::new(mapping), windows, vm, slot, place: Mutex::default() })
    }

    /// Returns all bytes.
    pub fn bytes(&self) -> VolatileSlice<'_> {
        self.mapping.as_volatile_slice()
    }

    /// Makes the memory visible to the guest from `address` on, and no longer elsewhere. `None`:
    /// nowhere. Its content stays the same.
    ///
    /// # Errors
    /// [`WindowError`]: the memory is where it was. If KVM refuses that, too, it is nowhere.
    pub fn place(&self, address: Option<u64>) -> Result<(), WindowError> {
        if let Some(address) = address.filter(|one| !self.fits(*one)) {
            return Err(WindowError::Outside(address));
        }
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if *place == address {
            return Ok(());
        }
        let before = *place;
        if before.is_some() {
            self.set_slot(0, 0).map_err(WindowError::Slot)?;
            *place = None;
        }
        let Some(address) = address else { return Ok(()) };
        let set = self.set_slot(address, self.mapping.size() as u64);
        if set.is_ok() {
            *place = Some(address);
        } else if let Some(before) = before
            && self.set_slot(before, self.mapping.size() as u64).is_ok()
        {
            *place = Some(before);
        }
        set.map_err(WindowError::Slot)
    }

    fn fits(&self, address: u64) -> bool {
        fits(&self.windows, address, self.mapping.size() as u64)
    }

    /// Sets the slot. `size`: 0 removes it.
    fn set_slot(&self, address: u64, size: u64) -> io::Result<()> {
        let region = kvm_userspace_memory_region {
            slot: self.slot,
            flags: 0,
            guest_phys_addr: address,
            memory_size: size,
            userspace_addr: self.mapping.as_ptr() as u64,
        };
        // SAFETY: the mapping has at least `size` bytes, and is not unmapped before the slot is
        // removed (see `drop`).
        unsafe { self.vm.set_user_memory_region(region) }
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }
}

impl Drop for WindowMemory {
    fn drop(&mut self) {
        if self.place(None).is_err() {
            // KVM may still use the memory: it must stay mapped.
            std::mem::forget(Arc::clone(&self.mapping));
        }
    }
}

impl std::fmt::Debug for WindowMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WindowMemory").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Returns whether `size` bytes from `address` on are whole pages within one window.
fn fits(windows: &[AddressRange], address: u64, size: u64) -> bool {
    let Some(end) = address.checked_add(size) else { return false };
    address.is_multiple_of(4096)
        && windows.iter().any(|window| window.start <= address && end <= window.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{IOAPIC_BASE, LAPIC_BASE, LOW_MMIO, MemoryLayout};

    #[test]
    fn test_memory_fits_only_into_the_windows() {
        let layout = MemoryLayout::new(5 << 30);
        let windows = [LOW_MMIO, layout.high_mmio];
        let size = 32 << 20;
        for good in [LOW_MMIO.start, LOW_MMIO.end - size, layout.high_mmio.start + 4096] {
            assert!(fits(&windows, good, size), "{good:#x}");
        }
        for bad in [
            0,
            0x1000,
            LOW_MMIO.start - 4096,
            LOW_MMIO.start + 1,
            LOW_MMIO.end - size + 4096,
            LOW_MMIO.end,
            IOAPIC_BASE,
            LAPIC_BASE,
            layout.high_ram.start,
            layout.high_mmio.end,
            u64::MAX - 4095,
            1 << 52,
        ] {
            assert!(!fits(&windows, bad, size), "{bad:#x}");
        }
    }
}
