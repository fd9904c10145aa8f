//! The dynamic memory of a machine: the device, the memory behind it, and the commands that use
//! it.

mod report;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use synthvm_dynamic_memory::{
    Bounds, DynamicMemory, DynamicMemoryOptions, FileMemory, MemorySlots, PageRange,
};
use synthvm_machine::{AddressRange, FreePages, HotAddSlots, Machine};
use vmbus_gpadl::{GuestRam, RamError};
use vmbus_host::VmBus;

use crate::config::{ByteSize, MemoryConfig};

pub use self::report::MemoryReport;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// The dynamic memory of a running machine.
#[derive(Debug)]
pub struct MemoryControl {
    device: DynamicMemory,
}

/// Returns the RAM of a machine. Memory that can be added later is in its window.
///
/// # Errors
/// See [`GuestRam::new`].
pub fn guest_ram(machine: &Machine) -> Result<GuestRam, RamError> {
    let AddressRange { start, end } = machine.layout().hot_add;
    GuestRam::with_window(machine.memory().clone(), start / PAGE..end / PAGE)
}

impl MemoryControl {
    /// Offers dynamic memory to the guest. `None`: the machine has none. The bus's reset hook must
    /// be added before.
    ///
    /// # Errors
    /// The host has too few file descriptors or too little memory.
    pub fn start(
        config: &MemoryConfig,
        machine: &mut Machine,
        ram: &GuestRam,
        bus: &VmBus,
    ) -> Result<Option<Self>, Box<dyn std::error::Error>> {
        if !config.is_dynamic() {
            return Ok(None);
        }
        let slots = Box::new(Slots(machine.hot_add_slots()));
        let memory = Arc::new(FileMemory::new(ram.clone(), Some(slots))?);
        let options = DynamicMemoryOptions::new(bounds(config));
        let device = DynamicMemory::new(options, Arc::clone(&memory) as _)?;
        bus.offer(Box::new(device.clone()))?;
        if config.free_page_reporting {
            let sink = FreePageSink { device: device.clone(), bus: bus.clone() };
            machine.set_free_pages(Arc::new(sink));
        }
        let resetting = device.clone();
        machine.add_reset_hook(Box::new(move || {
            resetting.reset();
            memory.reset();
        }));
        Ok(Some(Self { device }))
    }

    /// Returns the state.
    pub fn report(&self) -> MemoryReport {
        MemoryReport::from(&self.device.status())
    }

    /// Sets the size that the guest shall have. `None`: its demand decides. Does not wait.
    ///
    /// # Errors
    /// The size is out of bounds.
    pub fn set_size(&self, size: Option<ByteSize>) -> Result<(), String> {
        self.device.set_size(size.map(ByteSize::bytes)).map_err(|error| {
            let (min, max) = (ByteSize::from_bytes(error.min), ByteSize::from_bytes(error.max));
            format!("the guest's memory is {min} to {max} (--memory min=, max=)")
        })
    }
}

fn bounds(config: &MemoryConfig) -> Bounds {
    let pages = |size: ByteSize| size.bytes() / PAGE;
    Bounds {
        min: pages(config.min()),
        start: pages(config.size),
        max: pages(config.max()),
        buffer_percent: config.buffer,
        start_delay: Duration::from_secs(config.start_delay.into()),
    }
}

/// The machine's slots for added memory.
struct Slots(HotAddSlots);

impl MemorySlots for Slots {
    fn add(&self, range: PageRange) -> io::Result<()> {
        self.0.add(AddressRange { start: range.first * PAGE, end: range.end() * PAGE })
    }

    fn remove_all(&self) {
        self.0.remove_all();
    }
}

/// Returns free pages to the host.
struct FreePageSink {
    device: DynamicMemory,
    bus: VmBus,
}

impl FreePages for FreePageSink {
    fn discard(&self, ranges: &[Range<u64>]) {
        let ranges: Vec<_> = ranges
            .iter()
            .map(|range| PageRange::new(range.start, range.end.saturating_sub(range.start)))
            .collect();
        self.device.discard_free_pages(&ranges, &self.bus.shared_pages());
    }
}
