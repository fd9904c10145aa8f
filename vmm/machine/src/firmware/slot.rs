//! A KVM memory slot that the guest can only read, and that comes and goes while the guest runs.

use std::io;
use std::sync::Arc;

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

/// The numbers of the slots; RAM uses the first two.
pub(super) mod number {
    pub(in crate::firmware) const CODE: u32 = 8;
    pub(in crate::firmware) const VARIABLES: u32 = 9;
    pub(in crate::firmware) const OPTION_ROM: u32 = 10;
}

/// A slot, mapped or not. Reads of a mapped slot do not exit; writes exit as MMIO.
pub(super) struct RomSlot {
    vm: Arc<VmFd>,
    number: u32,
    memory: Arc<MmapRegion<()>>,
    mapped: Option<u64>,
}

impl RomSlot {
    /// Returns a slot that is not mapped. `memory` has whole pages.
    pub(super) fn new(vm: &Arc<VmFd>, number: u32, memory: Arc<MmapRegion<()>>) -> RomSlot {
        RomSlot { vm: Arc::clone(vm), number, memory, mapped: None }
    }

    /// Maps the slot at this guest physical address, or unmaps it.
    ///
    /// # Errors
    /// KVM's error; the slot is not mapped.
    pub(super) fn map(&mut self, address: Option<u64>) -> io::Result<()> {
        if self.mapped == address {
            return Ok(());
        }
        if let Some(old) = self.mapped.take() {
            self.set(old, 0)?;
        }
        if let Some(address) = address {
            self.set(address, self.memory.size() as u64)?;
            self.mapped = Some(address);
        }
        Ok(())
    }

    fn set(&self, address: u64, len: u64) -> io::Result<()> {
        let region = kvm_userspace_memory_region {
            slot: self.number,
            flags: KVM_MEM_READONLY,
            guest_phys_addr: address,
            memory_size: len,
            userspace_addr: self.memory.as_ptr() as u64,
        };
        // SAFETY: the mapping has the given length. It outlives the slot: this value owns it and
        // unmaps the slot when it is dropped.
        Ok(unsafe { self.vm.set_user_memory_region(region) }?)
    }
}

impl Drop for RomSlot {
    fn drop(&mut self) {
        if self.map(None).is_err() {
            // KVM may still use the memory, so it must stay.
            std::mem::forget(Arc::clone(&self.memory));
        }
    }
}

/// Returns memory of `len` bytes, rounded up to whole pages, that begins with `bytes`; the rest is
/// FFh.
pub(super) fn memory(bytes: &[u8], len: usize) -> io::Result<Arc<MmapRegion<()>>> {
    let size = len.max(bytes.len()).next_multiple_of(4096);
    let memory = MmapRegionBuilder::new(size)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_ANONYMOUS | libc::MAP_PRIVATE)
        .build()
        .map_err(io::Error::other)?;
    let slice = memory.as_volatile_slice();
    slice.write_slice(bytes, 0).map_err(io::Error::other)?;
    let blank = vec![0xFF; size - bytes.len()];
    slice.write_slice(&blank, bytes.len()).map_err(io::Error::other)?;
    Ok(Arc::new(memory))
}
