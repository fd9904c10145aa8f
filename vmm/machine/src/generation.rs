//! The generation id of a virtual machine (Microsoft, "Virtual Machine Generation ID"; spec
//! hypervisor-platform section 9.2): 16 bytes that a guest compares to learn that it continues from
//! a saved state, so that it renews what must be unique.
//!
//! The id is in a page of its own, which the guest's ACPI tables name. Hyper-V's generation 2
//! firmware has its own tables, and names 16 bytes of RAM by its BIOS device instead. A change is
//! notified by a general purpose event in both cases.

use std::io;
use std::sync::Arc;

use kvm_ioctls::VmFd;
use vm_memory::Bytes;

use crate::devices::pm::PmRegisters;
use crate::memory::{GENERATION_MMIO, WindowMemory};
use crate::msvm::GenerationPort;

/// The KVM memory slot of the page. Firmware has 8 to 10, devices 16 and more.
const SLOT: u32 = 11;

/// The general purpose event of a change. MSVM's tables have the same number.
pub(crate) const EVENT: u8 = 0;

/// The generation id of a machine, where its guest reads it.
pub(crate) struct Generation {
    place: Place,
    pm: Arc<PmRegisters>,
}

/// The place of the id in guest memory.
pub(crate) enum Place {
    /// A page that the machine's tables name.
    Page(WindowMemory),
    /// RAM that MSVM chooses.
    Msvm(GenerationPort),
}

impl Place {
    /// Returns a page with the id `id`.
    ///
    /// # Errors
    /// The host has no memory, or KVM refuses the page.
    pub(crate) fn page(vm: &Arc<VmFd>, id: [u8; 16]) -> io::Result<Place> {
        let windows = [GENERATION_MMIO; 2];
        let bytes = GENERATION_MMIO.len() as usize;
        let page = WindowMemory::allocate(Arc::clone(vm), windows, SLOT, bytes)?;
        write(&page, id)?;
        page.place(Some(GENERATION_MMIO.start)).map_err(io::Error::other)?;
        Ok(Place::Page(page))
    }
}

impl Generation {
    /// Returns the generation id at its place. `pm` raises the event of a change.
    pub(crate) fn new(place: Place, pm: Arc<PmRegisters>) -> Generation {
        Generation { place, pm }
    }

    /// Changes the id to a random one and notifies the guest.
    ///
    /// # Errors
    /// The host has no random numbers, or the memory failed.
    pub(crate) fn renew(&self) -> io::Result<()> {
        let id = random()?;
        match &self.place {
            Place::Page(page) => write(page, id)?,
            Place::Msvm(port) => {
                if !port.set(id) {
                    // The guest has named no place yet, and will read the new id there.
                    return Ok(());
                }
            }
        }
        self.pm.raise_event(EVENT);
        Ok(())
    }
}

/// Returns a random id.
pub(crate) fn random() -> io::Result<[u8; 16]> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    Ok(id)
}

fn write(page: &WindowMemory, id: [u8; 16]) -> io::Result<()> {
    page.bytes().write_slice(&id, 0).map_err(io::Error::other)
}
