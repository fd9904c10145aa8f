//! Instructions, and the memory functions that compilers call.

use core::arch::asm;

pub(crate) fn out8(port: u16, value: u8) {
    // SAFETY: port output does not touch memory of this program.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack)) };
}

pub(crate) fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: as for output.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack)) };
    value
}

pub(crate) fn out16(port: u16, value: u16) {
    // SAFETY: as for `out8`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack)) };
}

/// Writes a port. The device may read and write memory that the caller has named to it.
pub(crate) fn out32(port: u16, value: u32) {
    // SAFETY: the device changes only buffers whose addresses the caller gave; the compiler
    // assumes that any memory has changed.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack)) };
}

pub(crate) fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: as for output.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack)) };
    value
}

pub(crate) fn read_msr(index: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the MSRs that this program reads exist on Hyper-V.
    unsafe { asm!("rdmsr", in("ecx") index, out("eax") low, out("edx") high, options(nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

pub(crate) fn write_msr(index: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: the MSRs that this program writes name pages that it keeps for that.
    unsafe { asm!("wrmsr", in("ecx") index, in("eax") low, in("edx") high, options(nostack)) };
}

/// Calls the hypercall page at `page` with the input at `input`. Returns the status.
pub(crate) fn hypercall(page: u64, control: u64, input: u64) -> u64 {
    let status;
    // SAFETY: the hypervisor wrote the page; it changes only the registers that the ABI names.
    unsafe {
        asm!(
            "call {page}",
            page = in(reg) page,
            in("rcx") control,
            in("rdx") input,
            in("r8") 0_u64,
            out("rax") status,
            lateout("r9") _,
            lateout("r10") _,
            lateout("r11") _,
        );
    }
    status
}

/// Bytes at an address that this program or the VMM has written.
pub(crate) fn bytes_at(address: u64, len: usize) -> &'static [u8] {
    // SAFETY: the callers pass ranges of RAM that nothing writes while they read.
    unsafe { core::slice::from_raw_parts(address as *const u8, len) }
}

#[unsafe(no_mangle)]
extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: as C's memcpy; the instruction calls no function.
    unsafe {
        asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack));
    }
    to
}

#[unsafe(no_mangle)]
extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize) <= from as usize {
        return memcpy(to, from, len);
    }
    // SAFETY: as C's memmove: backwards, with the direction flag clear again at the end.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") len => _,
            inout("rdi") to.wrapping_add(len).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(len).wrapping_sub(1) => _, options(nostack));
    }
    to
}

#[unsafe(no_mangle)]
extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    // SAFETY: as C's memset.
    unsafe {
        asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") value as u8,
            options(nostack));
    }
    to
}

#[unsafe(no_mangle)]
extern "C" fn memcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    let mut at = 0;
    while at < len {
        // SAFETY: as C's memcmp.
        let (a, b) = unsafe { (one.add(at).read_volatile(), other.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
        at += 1;
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn bcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    memcmp(one, other, len)
}
