//! The machine, for the VMBus client.

use alloc::vec::Vec;
use core::arch::asm;
use core::cell::Cell;
use core::hint;
use core::ptr::{self, NonNull};
use core::time::Duration;

use uefi_vmbus::Memory;
use vmbus_client::platform::{HostBytes, Wake};
use vmbus_client::{Mdl, NtStatus, Platform, RingPair};
use vmbus_protocol::limits::{PAGE_SHIFT, PAGE_SIZE};
use vmbus_protocol::offer::HvStatus;
use vmbus_ring::RingMemory;

use super::boot::BootServices;
use super::hyperv::{self, Hypervisor};

/// The time that a wait without a limit of its own lasts: longer than any host needs that answers
/// at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// RFLAGS: interrupts are enabled.
const INTERRUPTS: u64 = 1 << 9;

/// The machine while boot services run.
#[derive(Debug)]
pub(super) struct UefiPlatform {
    boot: BootServices,
    hypervisor: Hypervisor,
    /// The system takes over: timers are off, and the memory map must not change.
    leaving: Cell<bool>,
}

impl UefiPlatform {
    pub(super) fn new(boot: BootServices, hypervisor: Hypervisor) -> Self {
        Self { boot, hypervisor, leaving: Cell::new(false) }
    }

    /// Prepares for the end of boot services.
    pub(super) fn leave(&self) {
        self.leaving.set(true);
    }

    /// Waits until the next interrupt, or for a moment if interrupts cannot end the wait.
    fn pause(&self) {
        let flags: u64;
        // SAFETY: reads the flags through the stack.
        unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
        if self.leaving.get() || flags & INTERRUPTS == 0 {
            hint::spin_loop();
            return;
        }
        // SAFETY: interrupts were enabled, and are again afterwards. An interrupt that arrives
        // after the check ends the halt, as `sti` takes effect after the next instruction.
        unsafe { asm!("cli", options(nomem, nostack)) };
        if self.hypervisor.has_work() {
            // SAFETY: as above.
            unsafe { asm!("sti", options(nomem, nostack)) };
        } else {
            // SAFETY: as above. At the latest the firmware's timer ends the halt.
            unsafe { asm!("sti", "hlt", options(nomem, nostack)) };
        }
    }
}

impl Platform for UefiPlatform {
    type Rings = RingPair;

    fn post_message(&self, connection_id: u32, message: &[u8]) -> HvStatus {
        self.hypervisor.post_message(connection_id, message)
    }

    fn signal_event(&self, connection_id: u32) -> HvStatus {
        self.hypervisor.signal_event(connection_id)
    }

    fn take_message(&self) -> Option<HostBytes> {
        self.hypervisor.take_message()
    }

    fn take_events(&self, sink: &mut dyn FnMut(u16)) {
        self.hypervisor.take_events(sink);
    }

    fn wait(&self) -> Wake {
        self.wait_at_most(PATIENCE)
    }

    fn wait_at_most(&self, time: Duration) -> Wake {
        let start = hyperv::now();
        loop {
            if self.hypervisor.has_work() {
                return Wake::Something;
            }
            if hyperv::now().saturating_sub(start) >= time {
                return Wake::Never;
            }
            self.pause();
        }
    }

    fn now(&self) -> Duration {
        hyperv::now()
    }

    fn back_off(&self, _: u32) {
        hint::spin_loop();
    }

    fn allocate_pages(&self, count: usize) -> Option<Vec<u64>> {
        if self.leaving.get() {
            return None;
        }
        let start = self.boot.allocate_data(count)?.as_ptr().expose_provenance() as u64;
        Some((start >> PAGE_SHIFT..).take(count).collect())
    }

    fn free_pages(&self, pages: &[u64]) {
        if self.leaving.get() {
            return;
        }
        for page in pages {
            // SAFETY: the client frees pages of `allocate_pages` that host and driver do not use.
            unsafe { self.boot.free(page << PAGE_SHIFT, 1) };
        }
    }

    fn map_rings(&self, pages: &[u64], downstream_page: usize) -> Result<RingPair, NtStatus> {
        let pages: Option<Vec<_>> = pages.iter().map(|&page| pointer(page)).collect();
        let pages = pages.ok_or(NtStatus::INVALID_PARAMETER)?;
        let (up, down) =
            pages.split_at_checked(downstream_page).ok_or(NtStatus::INVALID_PARAMETER)?;
        // SAFETY: the client passes pages of `allocate_pages`, which are mapped at their physical
        // address, and frees them only after it has dropped the rings.
        let rings = unsafe { (RingMemory::from_pages(up), RingMemory::from_pages(down)) };
        match rings {
            (Ok(up), Ok(down)) => RingPair::attach(up, down),
            _ => Err(NtStatus::INVALID_PARAMETER),
        }
    }

    fn probe_and_lock(&self, address: u64, bytes: u32) -> Result<Mdl, NtStatus> {
        describe(address, bytes).ok_or(NtStatus::INVALID_PARAMETER)
    }

    fn unlock(&self, _: &Mdl) {}
}

impl Memory for UefiPlatform {
    fn read_page(&self, page: u64, to: &mut [u8]) {
        let Some(from) = pointer(page) else { return };
        let len = to.len().min(PAGE_SIZE);
        // SAFETY: a page of `allocate_pages`. If the host writes to it late, the bytes are mixed.
        unsafe { from.copy_to_nonoverlapping(NonNull::from(to).cast(), len) };
    }
}

/// Returns the description of memory at an address, which is both virtual and physical.
pub(super) fn describe(address: u64, bytes: u32) -> Option<Mdl> {
    let offset = (address % PAGE_SIZE as u64) as u32;
    let end = address.checked_add(bytes.into())?;
    let pages = (address >> PAGE_SHIFT..end.div_ceil(PAGE_SIZE as u64)).collect();
    Mdl::new(bytes, offset, pages).ok()
}

fn pointer(page: u64) -> Option<NonNull<u8>> {
    let address = usize::try_from(page.checked_mul(PAGE_SIZE as u64)?).ok()?;
    NonNull::new(ptr::with_exposed_provenance_mut(address))
}
