//! The processor state at the firmware's entry, in KVM's form.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use synthvm_msvm::{EntryState, Segment};

use super::source;
use crate::boot::BootMsr;
use crate::memory::MemoryLayout;

/// Returns the MSRs that differ from KVM's reset values on every processor.
pub(crate) fn boot_msrs(layout: &MemoryLayout, address_bits: u32) -> Vec<BootMsr> {
    let registers = source::mtrrs(layout, address_bits);
    registers.into_iter().map(|(index, value)| BootMsr { index, value }).collect()
}

/// Changes a processor's reset state to the state at the firmware's entry.
pub(crate) fn apply(regs: &mut kvm_regs, sregs: &mut kvm_sregs, entry: &EntryState) {
    *regs = kvm_regs { rip: entry.rip, rbp: entry.rbp, rflags: 2, ..Default::default() };
    sregs.cs = segment(entry.code);
    for register in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *register = segment(entry.data);
    }
    // A task register that is not there: the firmware loads none, but the CPU requires a busy one.
    sregs.tr = kvm_segment { limit: 0x67, type_: 0xB, present: 1, ..Default::default() };
    sregs.gdt.base = entry.gdt_base;
    sregs.gdt.limit = entry.gdt_limit;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = entry.cr0;
    sregs.cr3 = entry.cr3;
    sregs.cr4 = entry.cr4;
    sregs.efer = entry.efer;
}

fn segment(segment: Segment) -> kvm_segment {
    let is_code = segment.is_code;
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: segment.selector,
        type_: if is_code { 0xB } else { 3 },
        present: 1,
        s: 1,
        l: is_code.into(),
        db: (!is_code).into(),
        g: 1,
        ..Default::default()
    }
}
