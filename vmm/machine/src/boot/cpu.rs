//! The processor state of the 64-bit boot protocol: flat segments, identity map of 4 GiB, caches
//! on.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress};

use super::{BootError, Entry, place};
use crate::memory::GuestMemory;
use crate::msvm;

const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const TSS_SELECTOR: u16 = 0x20;
/// The GDT: null, unused, code, data, TSS (two entries in long mode).
const GDT: [u64; 6] =
    [0, 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x0000_8B00_0000_0067, 0];

const PRESENT_WRITABLE: u64 = 0x3;
const LARGE_PAGE: u64 = 0x80;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// An MSR with the value that every processor starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BootMsr {
    /// MSR number.
    pub index: u32,
    /// The value.
    pub value: u64,
}

/// MISC_ENABLE: fast string operations.
const FAST_STRINGS: BootMsr = BootMsr { index: 0x1A0, value: 1 };
/// MTRRs enabled, default type write-back: there is no firmware to set ranges.
const MTRR_WRITE_BACK: BootMsr = BootMsr { index: 0x2FF, value: 0x806 };

/// Returns the MSRs that differ from KVM's reset values on every processor. Firmware expects that
/// the MTRRs are disabled.
pub(crate) const fn boot_msrs(has_firmware: bool) -> &'static [BootMsr] {
    if has_firmware { &[FAST_STRINGS] } else { &[FAST_STRINGS, MTRR_WRITE_BACK] }
}

/// Writes the descriptor table and the page tables.
pub(super) fn write_tables(memory: &GuestMemory) -> Result<(), BootError> {
    for (index, descriptor) in GDT.iter().enumerate() {
        memory.write_obj(*descriptor, GuestAddress(place::GDT + 8 * index as u64))?;
    }
    let pdpt = place::PML4 + 0x1000;
    let directories = pdpt + 0x1000;
    memory.write_obj(pdpt | PRESENT_WRITABLE, GuestAddress(place::PML4))?;
    for gib in 0..4 {
        let directory = directories + 0x1000 * gib;
        memory.write_obj(directory | PRESENT_WRITABLE, GuestAddress(pdpt + 8 * gib))?;
        for page in 0..512 {
            let address = (gib << 30) | (page << 21);
            memory.write_obj(
                address | PRESENT_WRITABLE | LARGE_PAGE,
                GuestAddress(directory + 8 * page),
            )?;
        }
    }
    Ok(())
}

/// Changes a processor's reset state to the state at the kernel's entry.
pub(crate) fn apply(regs: &mut kvm_regs, sregs: &mut kvm_sregs, entry: Entry) {
    let (rip, zero_page) = match entry {
        Entry::Linux { rip, zero_page } => (rip, zero_page),
        Entry::Pvh { eip, start_info } => return apply_pvh(regs, sregs, eip, start_info),
        Entry::Msvm(state) => return msvm::apply_cpu_state(regs, sregs, &state),
        Entry::ResetVector => return,
    };
    *regs = kvm_regs { rip, rsi: zero_page, rflags: 2, ..Default::default() };

    let code = segment(CODE_SELECTOR);
    let data = segment(DATA_SELECTOR);
    sregs.cs = code;
    for register in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *register = data;
    }
    sregs.tr = segment(TSS_SELECTOR);
    sregs.gdt.base = place::GDT;
    sregs.gdt.limit = (GDT.len() * 8 - 1) as u16;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    sregs.cr3 = place::PML4;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME | EFER_LMA;
}

/// Changes a processor's reset state to the state at a PVH entry: flat 32-bit segments and no
/// paging. The kernel loads tables of its own.
fn apply_pvh(regs: &mut kvm_regs, sregs: &mut kvm_sregs, eip: u32, start_info: u32) {
    *regs = kvm_regs { rip: eip.into(), rbx: start_info.into(), rflags: 2, ..Default::default() };
    let data = segment(DATA_SELECTOR);
    sregs.cs = kvm_segment { l: 0, db: 1, ..segment(CODE_SELECTOR) };
    for register in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *register = data;
    }
    sregs.tr = segment(TSS_SELECTOR);
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr3 = 0;
    sregs.cr4 = 0;
    sregs.efer = 0;
}

/// Returns the segment register that loading `selector` from [`GDT`] would give.
fn segment(selector: u16) -> kvm_segment {
    let descriptor = GDT[usize::from(selector >> 3)];
    let granular = descriptor >> 55 & 1;
    let limit = (descriptor & 0xFFFF | descriptor >> 32 & 0xF_0000) as u32;
    kvm_segment {
        base: 0,
        limit: if granular == 1 { limit << 12 | 0xFFF } else { limit },
        selector,
        type_: (descriptor >> 40 & 0xF) as u8,
        present: (descriptor >> 47 & 1) as u8,
        dpl: (descriptor >> 45 & 3) as u8,
        db: (descriptor >> 54 & 1) as u8,
        s: (descriptor >> 44 & 1) as u8,
        l: (descriptor >> 53 & 1) as u8,
        g: granular as u8,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_pvh_entry_is_in_flat_32_bit_mode_without_paging() {
        let (mut regs, mut sregs) = (kvm_regs::default(), kvm_sregs::default());
        let entry = Entry::Pvh { eip: 0x100_0370, start_info: 0x7000 };
        apply(&mut regs, &mut sregs, entry);
        assert_eq!((regs.rip, regs.rbx, regs.rflags), (0x100_0370, 0x7000, 2));
        assert_eq!((sregs.cr0 & (CR0_PE | CR0_PG), sregs.cr4, sregs.efer), (CR0_PE, 0, 0));
        assert_eq!((sregs.cs.db, sregs.cs.l, sregs.cs.limit, sregs.cs.base), (1, 0, u32::MAX, 0));
        assert_eq!((sregs.ss.db, sregs.ds.limit, sregs.tr.limit), (1, u32::MAX, 0x67));
    }

    #[test]
    fn test_segments_are_flat_long_mode_code_and_data() {
        let code = segment(CODE_SELECTOR);
        assert_eq!((code.l, code.db, code.type_, code.limit), (1, 0, 0xB, 0xFFFF_FFFF));
        let data = segment(DATA_SELECTOR);
        assert_eq!((data.l, data.db, data.type_, data.limit), (0, 1, 3, 0xFFFF_FFFF));
        let tss = segment(TSS_SELECTOR);
        assert_eq!((tss.s, tss.type_, tss.limit), (0, 0xB, 0x67));
    }
}
