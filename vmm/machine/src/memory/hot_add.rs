//! Memory that is added while the guest runs: a KVM memory slot for each piece.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::{AddressRange, GuestMemory};

/// The number of the first slot of added memory. Devices have lower ones.
const FIRST_SLOT: u32 = 64;

/// Shows pieces of the window for added memory to the guest. The host has all of the window mapped
/// all the time.
pub struct HotAddSlots {
    vm: Arc<VmFd>,
    memory: GuestMemory,
    window: AddressRange,
    /// The pieces that the guest sees, in the order of their slots.
    added: Mutex<Vec<AddressRange>>,
}

impl HotAddSlots {
    pub(crate) fn new(vm: Arc<VmFd>, memory: GuestMemory, window: AddressRange) -> Self {
        Self { vm, memory, window, added: Mutex::default() }
    }

    /// Returns the window, which is empty in a machine without hot add.
    pub fn window(&self) -> AddressRange {
        self.window
    }

    /// Shows `range` to the guest: whole pages of the window that it does not see yet.
    ///
    /// # Errors
    /// The range is none of these, or KVM refused the slot; nothing has changed.
    pub fn add(&self, range: AddressRange) -> io::Result<()> {
        let mut added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        let overlaps = |one: &AddressRange| range.start < one.end && one.start < range.end;
        let is_page = |address: u64| address.is_multiple_of(4096);
        if range.start >= range.end
            || range.start < self.window.start
            || range.end > self.window.end
            || !(is_page(range.start) && is_page(range.end))
            || added.iter().any(overlaps)
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.set_slot(added.len(), range, range.len())?;
        added.push(range);
        Ok(())
    }

    /// Takes all of them from the guest. No vCPU must run.
    pub fn remove_all(&self) {
        let mut added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, range) in added.drain(..).enumerate() {
            if let Err(error) = self.set_slot(index, range, 0) {
                tracing::warn!(%error, "KVM keeps memory that was added to the guest");
            }
        }
    }

    /// Sets the slot of a piece. `size`: 0 removes it.
    fn set_slot(&self, index: usize, range: AddressRange, size: u64) -> io::Result<()> {
        let slot = u32::try_from(index).ok().and_then(|index| FIRST_SLOT.checked_add(index));
        let slot = slot.ok_or(io::ErrorKind::QuotaExceeded)?;
        let host = self.memory.get_host_address(GuestAddress(range.start));
        let host = host.map_err(io::Error::other)?;
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: range.start,
            memory_size: size,
            userspace_addr: host.expose_provenance() as u64,
        };
        // SAFETY: the window is one mapping of `memory`, which has all of `range`. Every owner of
        // the VM's vCPUs also holds the memory.
        unsafe { self.vm.set_user_memory_region(region) }
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }
}

impl std::fmt::Debug for HotAddSlots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HotAddSlots")
            .field("window", &self.window)
            .field("added", &self.added)
            .finish_non_exhaustive()
    }
}
