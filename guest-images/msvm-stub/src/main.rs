//! Firmware for tests: it does at the VMM's interfaces what Hyper-V's generation 2 firmware does,
//! reports each step on COM1, and switches the machine off (spec firmware-windows section A).
//!
//! A line `stub: NAME ok` is a step that worked, with details after it; `stub: NAME failed` is one
//! that did not. The last line is `stub: done`.

#![no_std]
#![no_main]

mod bios;
mod blob;
mod console;
mod cpu;
mod nvram;
mod vmbus;

use core::fmt::Write as _;

use console::Console;

/// Power management: SLP_EN with type 0 switches the machine off.
const PM1_CONTROL: u16 = 0x404;
const SLEEP: u16 = 1 << 13;
/// The last line of a run in which the watchdog is to expire.
const WAIT_VARIABLE: &[u8] = b"W\0a\0i\0t\0\0\0";

core::arch::global_asm!(
    ".section .text._start, \"ax\"",
    ".global _start",
    "_start:",
    // 32 KiB below 0x80000, as the firmware has it.
    "mov rsp, 0x80000",
    "xor ebp, ebp",
    "call {main}",
    "2: hlt",
    "jmp 2b",
    main = sym main,
);

extern "C" fn main() -> ! {
    step("blob", blob::check());
    step("watchdog", bios::check_watchdog());
    step("nfit", bios::check_nfit());
    step("random", bios::check_random());
    step("variables", nvram::check());
    step("names", nvram::check_names());
    step("boots", nvram::count_boots());
    step("events", bios::flush_no_device());
    step("vmbus", vmbus::check());
    if nvram::get(WAIT_VARIABLE, &mut [0; 8]).is_ok() {
        // The next boot must not wait again.
        let _ = nvram::set(WAIT_VARIABLE, 7, &[]);
        let _ = writeln!(Console, "stub: waits for the watchdog");
        bios::start_watchdog(1);
        loop {
            core::hint::spin_loop();
        }
    }
    let expired = bios::last_boot_expired();
    // The run with which `boots` is 1 asks the next one to wait.
    if !expired && nvram::boots() == 1 {
        let _ = nvram::set(WAIT_VARIABLE, 7, &[1]);
        let _ = writeln!(Console, "stub: resets");
        cpu::out8(0x433, 1);
        loop {
            core::hint::spin_loop();
        }
    }
    let _ = writeln!(Console, "stub: expired {expired}");
    let _ = writeln!(Console, "stub: done");
    cpu::out16(PM1_CONTROL, SLEEP);
    loop {
        core::hint::spin_loop();
    }
}

/// Reports a step: its number of things, or the number of the check that failed.
fn step(name: &str, outcome: Result<u64, u32>) {
    let _ = match outcome {
        Ok(count) => writeln!(Console, "stub: {name} ok {count}"),
        Err(check) => writeln!(Console, "stub: {name} failed at check {check}"),
    };
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Console, "stub: {}", info.message());
    cpu::out16(PM1_CONTROL, SLEEP);
    loop {
        core::hint::spin_loop();
    }
}
