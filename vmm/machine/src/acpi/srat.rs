//! SRAT: the memory that can be added while the guest runs (ACPI 6.5, section 5.2.16).
//!
//! A guest learns from it the highest address that RAM can have. Linux needs no SRAT to add memory;
//! Hyper-V declares its window to Windows in this way (docs/spec/integration-services.md section
//! 9). All memory and all processors are in one proximity domain.

use acpi_tables::sdt::Sdt;

use crate::memory::{AddressRange, MemoryLayout};

const ENABLED: u32 = 1;
const HOT_PLUGGABLE: u32 = 2;
/// The largest APIC id of an xAPIC entry.
const XAPIC_MAX: u32 = 254;

pub(super) fn build(apic_ids: &[u32], layout: &MemoryLayout) -> Sdt {
    let mut srat = super::table(*b"SRAT", 3);
    // Reserved: a 1, and eight zeros.
    srat.append_slice(&1_u32.to_le_bytes());
    srat.append_slice(&[0; 8]);
    for &apic_id in apic_ids {
        srat.append_slice(&processor(apic_id));
    }
    let ram = [layout.low_ram, layout.high_ram].map(|range| (range, ENABLED));
    let added = (layout.hot_add, ENABLED | HOT_PLUGGABLE);
    for (range, flags) in ram.into_iter().chain([added]) {
        if !range.is_empty() {
            srat.append_slice(&memory(range, flags));
        }
    }
    srat
}

/// Returns the entry of a processor.
fn processor(apic_id: u32) -> Vec<u8> {
    let mut entry;
    if apic_id <= XAPIC_MAX {
        entry = vec![0, 16, 0, apic_id as u8];
        entry.extend(ENABLED.to_le_bytes());
        entry.extend([0; 8]);
    } else {
        entry = vec![2, 24, 0, 0];
        entry.extend(0_u32.to_le_bytes());
        entry.extend(apic_id.to_le_bytes());
        entry.extend(ENABLED.to_le_bytes());
        entry.extend([0; 8]);
    }
    entry
}

/// Returns the entry of a range of memory.
fn memory(range: AddressRange, flags: u32) -> Vec<u8> {
    let mut entry = vec![1, 40];
    entry.extend(0_u32.to_le_bytes());
    entry.extend([0; 2]);
    entry.extend(range.start.to_le_bytes());
    entry.extend(range.len().to_le_bytes());
    entry.extend([0; 4]);
    entry.extend(flags.to_le_bytes());
    entry.extend([0; 8]);
    entry
}
