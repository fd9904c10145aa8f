//! MADT: processors, IOAPIC, and the interrupts that differ from their ISA defaults.

use acpi_tables::sdt::Sdt;

use super::Platform;
use crate::devices::pm;
use crate::memory::{IOAPIC_BASE, LAPIC_BASE};

/// The machine also has a pair of 8259 PICs.
const PCAT_COMPAT: u32 = 1;
const ENABLED: u32 = 1;
/// The largest APIC id that an xAPIC entry can carry (255 means broadcast).
const XAPIC_MAX: u32 = 254;
const ACTIVE_HIGH_LEVEL: u16 = 0b1101;
const CONFORMS: u16 = 0;

pub(super) fn build(platform: &Platform) -> Sdt {
    let mut madt = super::table(*b"APIC", 5);
    madt.append_slice(&(LAPIC_BASE as u32).to_le_bytes());
    madt.append_slice(&(if platform.legacy_timer { PCAT_COMPAT } else { 0 }).to_le_bytes());

    for (uid, &apic_id) in platform.apic_ids.iter().enumerate() {
        let uid = uid as u32;
        let mut entry;
        if apic_id <= XAPIC_MAX {
            entry = vec![0, 8, uid as u8, apic_id as u8];
            entry.extend(ENABLED.to_le_bytes());
        } else {
            entry = vec![9, 16, 0, 0];
            entry.extend(apic_id.to_le_bytes());
            entry.extend(ENABLED.to_le_bytes());
            entry.extend(uid.to_le_bytes());
        }
        madt.append_slice(&entry);
    }

    let mut ioapic = vec![1, 12, 0, 0];
    ioapic.extend((IOAPIC_BASE as u32).to_le_bytes());
    ioapic.extend(0u32.to_le_bytes());
    madt.append_slice(&ioapic);

    if platform.legacy_timer {
        madt.append_slice(&source_override(0, 2, CONFORMS));
    }
    madt.append_slice(&source_override(pm::SCI as u8, u32::from(pm::SCI), ACTIVE_HIGH_LEVEL));

    // LINT1 of every processor is NMI.
    madt.append_slice(&[4, 6, 0xFF, 0, 0, 1]);
    madt
}

fn source_override(irq: u8, gsi: u32, flags: u16) -> Vec<u8> {
    let mut entry = vec![2, 10, 0, irq];
    entry.extend(gsi.to_le_bytes());
    entry.extend(flags.to_le_bytes());
    entry
}
