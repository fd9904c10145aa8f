//! The interrupt of the SynIC. Its handler only ends it: the driver polls. Without a handler the
//! firmware's exception library would not end it, and the local APIC would hold back all others
//! (firmware-windows section E2).

use core::ffi::c_void;
use core::ptr;

use uefi_raw::{Guid, Status, guid};

use super::boot::BootServices;
use super::msr;

/// The vector, which is that of generation-2 firmware.
pub(super) const VECTOR: u8 = 0x41;

const APIC_BASE: u32 = 0x1B;
const APIC_BASE_X2APIC: u64 = 1 << 10;
const APIC_BASE_ADDRESS: u64 = 0xF_FFFF_F000;
const X2APIC_EOI: u32 = 0x80B;
const XAPIC_EOI: u64 = 0xB0;

type Handler = unsafe extern "efiapi" fn(vector: isize, context: *const c_void);

/// The CPU architectural protocol of the platform initialisation specification, as far as it is
/// used here.
#[repr(C)]
struct CpuArch {
    flush_data_cache: *const c_void,
    enable_interrupt: *const c_void,
    disable_interrupt: *const c_void,
    get_interrupt_state: *const c_void,
    init: *const c_void,
    register_interrupt_handler:
        unsafe extern "efiapi" fn(this: *mut CpuArch, vector: isize, Option<Handler>) -> Status,
}

impl CpuArch {
    const GUID: Guid = guid!("26baccb1-6f42-11d4-bce7-0080c73c8881");
}

/// Registers the handler. Returns false if the firmware refuses.
pub(super) fn register(boot: BootServices) -> bool {
    set(boot, Some(end_of_interrupt)) == Status::SUCCESS
}

/// Removes the handler.
pub(super) fn unregister(boot: BootServices) {
    // If it cannot be removed, it stays harmless: the SINT is masked.
    let _ = set(boot, None);
}

fn set(boot: BootServices, handler: Option<Handler>) -> Status {
    let Some(cpu) = boot.locate(&CpuArch::GUID) else { return Status::NOT_FOUND };
    let cpu: *mut CpuArch = cpu.as_ptr().cast();
    // SAFETY: the firmware's instance of the protocol; the handler stays valid until it is removed.
    unsafe { ((*cpu).register_interrupt_handler)(cpu, VECTOR.into(), handler) }
}

unsafe extern "efiapi" fn end_of_interrupt(_: isize, _: *const c_void) {
    let base = msr::read(APIC_BASE);
    if base & APIC_BASE_X2APIC != 0 {
        msr::write(X2APIC_EOI, 0);
    } else {
        let register = (base & APIC_BASE_ADDRESS) + XAPIC_EOI;
        let register = ptr::with_exposed_provenance_mut::<u32>(register as usize);
        // SAFETY: the local APIC's registers, which boot services map at their physical address.
        unsafe { register.write_volatile(0) };
    }
}
