//! The state of the boot processor at the firmware's entry (spec hypervisor-platform section 13)
//! and the memory types of all processors (spec firmware-windows section A3).

use crate::placement::Placement;

const CR0_PE: u64 = 1;
const CR0_MP: u64 = 1 << 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const CR4_MCE: u64 = 1 << 6;
const CR4_FXSR: u64 = 1 << 9;
const CR4_XMMEXCPT: u64 = 1 << 10;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;

const WRITE_BACK: u64 = 6;
const MTRR_DEFAULT_TYPE: u32 = 0x2FF;
const MTRR_FIXED_64K: u32 = 0x250;
const MTRR_FIXED_16K: u32 = 0x258;
/// First of the eleven fixed-range registers above 640 KiB: 16 KiB ranges from 0xA0000.
const MTRR_FIXED_HIGH: [u32; 9] = [0x259, 0x268, 0x269, 0x26A, 0x26B, 0x26C, 0x26D, 0x26E, 0x26F];
const MTRR_VARIABLE: u32 = 0x200;
/// Variable ranges that KVM's processors have.
const VARIABLE_RANGES: usize = 8;
const MASK_VALID: u64 = 1 << 11;

/// A segment register: the selector, and whether it is code. Both kinds are flat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Selector in the GDT.
    pub selector: u16,
    /// 64-bit code; otherwise data.
    pub is_code: bool,
}

/// The registers of the boot processor. Registers that are not here are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryState {
    /// First instruction of the SEC core.
    pub rip: u64,
    /// Address of the SEC volume.
    pub rbp: u64,
    /// Control register 0.
    pub cr0: u64,
    /// Address of the page tables.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Extended feature enables.
    pub efer: u64,
    /// Address of the GDT.
    pub gdt_base: u64,
    /// Limit of the GDT.
    pub gdt_limit: u16,
    /// CS.
    pub code: Segment,
    /// DS, ES, FS, GS and SS.
    pub data: Segment,
}

impl EntryState {
    pub(crate) const fn new(placement: Placement, rip: u64, rbp: u64) -> EntryState {
        EntryState {
            rip,
            rbp,
            cr0: CR0_PG | CR0_NE | CR0_ET | CR0_MP | CR0_PE,
            cr3: placement.page_tables(),
            cr4: CR4_PAE | CR4_MCE | CR4_FXSR | CR4_XMMEXCPT,
            efer: EFER_LMA | EFER_LME | EFER_NXE,
            gdt_base: placement.gdt(),
            gdt_limit: 0x1F,
            code: Segment { selector: 8, is_code: true },
            data: Segment { selector: 0x10, is_code: false },
        }
    }
}

/// A memory type register with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtrr {
    /// MSR number.
    pub index: u32,
    /// The value.
    pub value: u64,
}

/// Returns the memory type registers of every processor: RAM is write-back, all else uncached.
/// `low_end` is the end of RAM below 4 GiB, `high_end` that above, or 4 GiB without such RAM.
/// `address_bits` is the width of physical addresses that CPUID reports.
#[must_use]
pub fn mtrrs(low_end: u64, high_end: u64, address_bits: u32) -> Vec<Mtrr> {
    let mut registers = vec![
        Mtrr { index: MTRR_FIXED_64K, value: 0x0606_0606_0606_0606 },
        Mtrr { index: MTRR_FIXED_16K, value: 0x0606_0606_0606_0606 },
    ];
    registers.extend(MTRR_FIXED_HIGH.map(|index| Mtrr { index, value: 0 }));
    let ranges = power_of_two_ranges(0, low_end)
        .chain(power_of_two_ranges(1 << 32, high_end))
        .take(VARIABLE_RANGES);
    let address_mask = (1_u64 << address_bits.min(52)) - 1;
    let mut index = MTRR_VARIABLE;
    for (base, len) in ranges {
        registers.push(Mtrr { index, value: base | WRITE_BACK });
        let value = address_mask & !(len - 1) | MASK_VALID;
        registers.push(Mtrr { index: index + 1, value });
        index += 2;
    }
    // Enabled, fixed ranges enabled, uncached by default. Last, when the ranges are complete.
    registers.push(Mtrr { index: MTRR_DEFAULT_TYPE, value: 0xC00 });
    registers
}

/// Divides `start..end` into aligned ranges whose lengths are powers of two, which is what a
/// variable range register describes.
fn power_of_two_ranges(start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut at = start;
    std::iter::from_fn(move || {
        let left = end.checked_sub(at).filter(|left| *left != 0)?;
        let largest = 1 << left.ilog2();
        let aligned = if at == 0 { largest } else { 1 << at.trailing_zeros() };
        let range = (at, largest.min(aligned));
        at += range.1;
        Some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_mtrrs_of_two_regions_cover_all_ram_and_nothing_else() {
        for (low, high) in [(128_u64 << 20, 1_u64 << 32), (0xC000_0000, (4 << 30) + (3 << 30))] {
            let registers = mtrrs(low, high, 40);
            let value = |index| registers.iter().find(|r| r.index == index).map(|r| r.value);
            assert_eq!(value(0x2FF), Some(0xC00));
            let mut covered = 0;
            for index in (0x200..0x210).step_by(2) {
                let Some((base, mask)) = value(index).zip(value(index + 1)) else { break };
                assert_eq!(base & 0xFF, 6);
                let len = (!(mask & !0xFFF) & ((1 << 40) - 1)) + 1;
                let base = base & !0xFFF;
                assert_eq!(base % len, 0);
                assert!(base + len <= low || base >= 1 << 32 && base + len <= high);
                covered += len;
            }
            assert_eq!(covered, low + (high - (1 << 32)));
        }
    }

    #[test]
    fn test_entry_state_is_long_mode_with_the_named_bits() {
        let state = EntryState::new(Placement::new(6 << 20), 1, 2);
        assert_eq!(state.cr0, 0x8000_0033);
        assert_eq!(state.cr4, 0x660);
        assert_eq!(state.efer, 0xD00);
        assert_eq!((state.cr3, state.gdt_base, state.gdt_limit), (0x700000, 0x706000, 0x1F));
    }
}
