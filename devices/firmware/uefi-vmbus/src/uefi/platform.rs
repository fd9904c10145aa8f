//! The machine, for the VMBus client.

use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::hint;
use core::ptr::{self, NonNull};
use core::time::Duration;

use uefi_vmbus::Memory;
use vmbus_client::platform::{
    HostBytes, IncomingPacket, OutgoingPacket, RingFault, Rings, Space, Wake,
};
use vmbus_client::{Mdl, NtStatus, Platform, RingPair};
use vmbus_protocol::limits::{PAGE_SHIFT, PAGE_SIZE};
use vmbus_protocol::offer::HvStatus;
use vmbus_ring::{RingMemory, RingWatch};

use super::boot::BootServices;
use super::hyperv::{self, Hypervisor};

/// The time that a wait without a limit of its own lasts: longer than any host needs that answers
/// at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// The machine while boot services run.
#[derive(Debug)]
pub(super) struct UefiPlatform {
    boot: BootServices,
    hypervisor: Hypervisor,
    /// The system takes over: the memory map must not change.
    leaving: Cell<bool>,
    rings: RefCell<Vec<Polled>>,
    relids: RefCell<Vec<u16>>,
}

impl UefiPlatform {
    pub(super) fn new(boot: BootServices, hypervisor: Hypervisor) -> Self {
        let leaving = Cell::new(false);
        Self { boot, hypervisor, leaving, rings: RefCell::default(), relids: RefCell::default() }
    }

    /// Prepares for the end of boot services.
    pub(super) fn leave(&self) {
        self.leaving.set(true);
    }

    /// Polls the rings of the channels with these relids from now on.
    pub(super) fn poll_channels(&self, relids: Vec<u16>) {
        *self.relids.borrow_mut() = relids;
    }

    /// Returns true if the host has written to a ring since the last [`Platform::take_events`].
    fn has_packets(&self) -> bool {
        self.rings.borrow().iter().any(|ring| ring.is_new().is_some())
    }
}

/// A ring from the host that is polled.
#[derive(Debug)]
struct Polled {
    ring: RingWatch,
    /// The host's write index when it was read last.
    seen: Cell<u32>,
}

impl Polled {
    /// Returns the host's write index if it has changed. `None` also for a ring that has ended.
    fn is_new(&self) -> Option<u32> {
        let index = self.ring.snapshot()?.write_index;
        (index != self.seen.get()).then_some(index)
    }
}

/// Rings of which the one from the host stays masked: the host never signals, so no interrupt comes
/// while the firmware runs another handler.
#[derive(Debug)]
pub(super) struct PolledRings(RingPair);

impl Rings for PolledRings {
    fn write(&mut self, packet: &OutgoingPacket<'_>) -> Result<bool, RingFault> {
        self.0.write(packet)
    }

    fn wait_for_space(&mut self, needed: u32) -> Result<Space, RingFault> {
        self.0.wait_for_space(needed)
    }

    fn read(&mut self, max: usize, out: &mut Vec<IncomingPacket>) -> Result<bool, RingFault> {
        self.0.read(max, out)
    }

    fn mask(&mut self) {
        self.0.mask();
    }

    /// Leaves the ring masked. Packets after the last read change the write index.
    fn unmask(&mut self) -> Result<bool, RingFault> {
        Ok(false)
    }
}

impl Platform for UefiPlatform {
    type Rings = PolledRings;

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
        let mut written = false;
        self.rings.borrow_mut().retain(|ring| ring.ring.snapshot().is_some());
        for ring in self.rings.borrow().iter() {
            if let Some(index) = ring.is_new() {
                ring.seen.set(index);
                written = true;
            }
        }
        // The client looks at a ring that has no packet without harm.
        if written {
            self.relids.borrow().iter().for_each(|&relid| sink(relid));
        }
    }

    fn wait(&self) -> Wake {
        self.wait_at_most(PATIENCE)
    }

    fn wait_at_most(&self, time: Duration) -> Wake {
        let start = hyperv::now();
        loop {
            if self.hypervisor.has_work() || self.has_packets() {
                return Wake::Something;
            }
            if hyperv::now().saturating_sub(start) >= time {
                return Wake::Never;
            }
            hint::spin_loop();
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

    fn map_rings(&self, pages: &[u64], downstream_page: usize) -> Result<PolledRings, NtStatus> {
        let pages: Option<Vec<_>> = pages.iter().map(|&page| pointer(page)).collect();
        let pages = pages.ok_or(NtStatus::INVALID_PARAMETER)?;
        let (up, down) =
            pages.split_at_checked(downstream_page).ok_or(NtStatus::INVALID_PARAMETER)?;
        // SAFETY: the client passes pages of `allocate_pages`, which are mapped at their physical
        // address, and frees them only after it has dropped the rings.
        let rings = unsafe { (RingMemory::from_pages(up), RingMemory::from_pages(down)) };
        match rings {
            (Ok(up), Ok(down)) => {
                let pair = RingPair::attach(up, down)?;
                let polled = Polled { ring: pair.incoming.watch(), seen: Cell::new(0) };
                self.rings.borrow_mut().push(polled);
                Ok(PolledRings(pair))
            }
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
