//! VMBus: contact, offers and unload, by polling the message page.

use core::arch::x86_64::__cpuid;

use crate::bios::{put, word_at};
use crate::cpu::{self, hypercall};

const GUEST_OS_ID: u32 = 0x4000_0000;
const HYPERCALL: u32 = 0x4000_0001;
const SCONTROL: u32 = 0x4000_0080;
const SIEFP: u32 = 0x4000_0082;
const SIMP: u32 = 0x4000_0083;
const EOM: u32 = 0x4000_0084;
const SINT2: u32 = 0x4000_0092;
const TIME: u32 = 0x4000_0020;

const HYPERCALL_PAGE: u64 = 0x3_0000;
const EVENT_PAGE: u64 = 0x3_1000;
const MESSAGE_PAGE: u64 = 0x3_2000;
const INPUT: u64 = 0x3_3000;
/// Slot of SINT 2: {u32 type, u8 bytes, u8 flags, ..., payload at 16}.
const SLOT: u64 = MESSAGE_PAGE + 2 * 256;
const PAYLOAD: u64 = SLOT + 16;

const POST_MESSAGE: u64 = 0x5C;
const REQUEST_OFFERS: u32 = 3;
const INITIATE_CONTACT: u32 = 14;
const UNLOAD: u32 = 16;
const OFFER: u32 = 1;
const ALL_OFFERS_DELIVERED: u32 = 4;
const VERSION_RESPONSE: u32 = 15;
const UNLOAD_RESPONSE: u32 = 17;
const VERSION_6_0: u32 = 0x6_0000;
/// Vector 0x41, masked: this program polls.
const SINT_MASKED: u64 = 0x41 | 1 << 16;
/// In units of 100 ns: ten seconds.
const PATIENCE: u64 = 100_000_000;

/// Returns the number of offers.
pub(crate) fn check() -> Result<u64, u32> {
    // Hypercalls, time, SynIC and timers, without which the firmware stops (section A7).
    let features = __cpuid(0x4000_0003).eax;
    if features & 0x2E != 0x2E {
        return Err(1);
    }
    cpu::write_msr(GUEST_OS_ID, 0x8001_0000_0000_0001);
    cpu::write_msr(HYPERCALL, HYPERCALL_PAGE | 1);
    if word_at(HYPERCALL_PAGE) & 0xFF_FFFF == 0 {
        return Err(2);
    }
    // The firmware never enables the SynIC itself.
    if cpu::read_msr(SCONTROL) & 1 == 0 {
        return Err(3);
    }
    cpu::write_msr(SIEFP, EVENT_PAGE | 1);
    cpu::write_msr(SIMP, MESSAGE_PAGE | 1);
    cpu::write_msr(SINT2, SINT_MASKED);

    let mut contact = [0; 56];
    contact[..4].copy_from_slice(&INITIATE_CONTACT.to_le_bytes());
    contact[8..12].copy_from_slice(&VERSION_6_0.to_le_bytes());
    contact[16] = 2;
    // Feature 8: a client id follows.
    contact[20] = 8;
    contact[40..].fill(0x5A);
    post(&contact, 4)?;
    if receive(5)? != VERSION_RESPONSE || word_at(PAYLOAD + 8) & 0xFF != 1 {
        return Err(6);
    }
    let length = (word_at(SLOT + 4) & 0xFF) as usize;
    complete();
    if length != 20 {
        return Err(7);
    }
    post(&header(REQUEST_OFFERS), 8)?;
    let mut offers = 0;
    loop {
        let kind = receive(9)?;
        complete();
        match kind {
            OFFER => offers += 1,
            ALL_OFFERS_DELIVERED => break,
            _ => return Err(10),
        }
    }
    post(&header(UNLOAD), 11)?;
    let kind = receive(12)?;
    complete();
    if kind != UNLOAD_RESPONSE {
        return Err(13);
    }
    cpu::write_msr(SIMP, 0);
    cpu::write_msr(SIEFP, 0);
    cpu::write_msr(HYPERCALL, 0);
    Ok(offers)
}

fn header(kind: u32) -> [u8; 8] {
    u64::from(kind).to_le_bytes()
}

/// Posts a message to connection id 1, as the firmware does for every version.
fn post(message: &[u8], check: u32) -> Result<(), u32> {
    put(INPUT, &1_u64.to_le_bytes());
    put(INPUT + 8, &1_u32.to_le_bytes());
    put(INPUT + 12, &(message.len() as u32).to_le_bytes());
    put(INPUT + 16, message);
    match hypercall(HYPERCALL_PAGE, POST_MESSAGE, INPUT) {
        0 => Ok(()),
        _ => Err(check),
    }
}

/// Waits for a message. Returns the VMBus type; [`complete`] frees the slot.
fn receive(check: u32) -> Result<u32, u32> {
    let end = cpu::read_msr(TIME) + PATIENCE;
    loop {
        // SAFETY: the message page, which the hypervisor writes.
        let kind = unsafe { (SLOT as *const u32).read_volatile() };
        if kind == 1 {
            return Ok(word_at(PAYLOAD));
        }
        if kind != 0 || cpu::read_msr(TIME) > end {
            return Err(check);
        }
    }
}

/// Frees the slot.
fn complete() {
    put(SLOT, &[0; 4]);
    cpu::write_msr(EOM, 0);
}
