//! Model-specific registers: those of the hypervisor, and access to any (spec
//! hypervisor-platform section 2).

use core::arch::asm;

pub(super) const GUEST_OS_ID: u32 = 0x4000_0000;
pub(super) const HYPERCALL: u32 = 0x4000_0001;
pub(super) const VP_INDEX: u32 = 0x4000_0002;
pub(super) const TIME_REF_COUNT: u32 = 0x4000_0020;
pub(super) const SCONTROL: u32 = 0x4000_0080;
pub(super) const SIEFP: u32 = 0x4000_0082;
pub(super) const SIMP: u32 = 0x4000_0083;
pub(super) const EOM: u32 = 0x4000_0084;
pub(super) const SINT0: u32 = 0x4000_0090;

/// Reads a register that exists.
pub(super) fn read(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the callers read registers that CPUID announces; that has no effect on memory.
    unsafe {
        asm!(
            "rdmsr",
            in("ecx") number,
            out("eax") low,
            out("edx") high,
            options(nostack, preserves_flags)
        );
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a register that exists.
pub(super) fn write(number: u32, value: u64) {
    // SAFETY: the callers write registers that CPUID announces, with pages of their own.
    unsafe {
        asm!(
            "wrmsr",
            in("ecx") number,
            in("eax") value as u32,
            in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags)
        );
    }
}
