//! FADT: power management registers at fixed ports (spec section 9.3, choice (a): not
//! hardware-reduced, so that legacy interrupts exist).

use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use crate::devices::pm;
use crate::devices::rtc;

/// The machine has legacy devices (serial ports).
const BOOT_ARCH_LEGACY: u16 = 1;
/// The guest must not probe for VGA. Bit 1 stays clear: there is no keyboard controller either.
const BOOT_ARCH_NO_VGA: u16 = 1 << 2;
/// Worst-case latencies above 100 us (C2) and 1000 us (C3) mean that the state does not exist.
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;

/// Offset and size of FIRMWARE_CTRL, DSDT and X_DSDT.
pub(super) const POINTERS: [(u32, u8); 3] = [(36, 4), (40, 4), (140, 8)];

pub(super) fn build(facs: u64, dsdt: u64) -> FADT {
    let io = |port: u16, bits: u8, access: AccessSize| {
        GAS::new(AddressSpace::SystemIo, bits, 0, access, u64::from(port))
    };
    let mut fadt = FADTBuilder::new(super::OEM_ID, super::OEM_TABLE_ID, super::OEM_REVISION)
        .firmware_ctrl_32(facs as u32)
        .dsdt_64(dsdt)
        .gpe_info(u32::from(pm::GPE0), 0, pm::GPE0_LEN, 0, 0)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup)
        .flag(Flags::UsePlatformClock);
    // PWR_BUTTON stays clear: the power button is a fixed feature. The sleep button flag is set:
    // there is no such button.
    fadt.dsdt = (dsdt as u32).into();
    fadt.sci_int = pm::SCI.into();
    fadt.pm1a_evt_blk = u32::from(pm::PM1_EVENT).into();
    fadt.pm1_evt_len = 4;
    fadt.pm1a_cnt_blk = u32::from(pm::PM1_CONTROL).into();
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_blk = u32::from(pm::TIMER).into();
    fadt.pm_tmr_len = 4;
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.century = rtc::CENTURY;
    fadt.iapc_boot_arch = (BOOT_ARCH_LEGACY | BOOT_ARCH_NO_VGA).into();
    fadt.reset_reg = io(pm::RESET, 8, AccessSize::ByteAccess);
    fadt.reset_value = pm::RESET_VALUE;
    fadt.x_pm1a_evt_blk = io(pm::PM1_EVENT, 32, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = io(pm::PM1_CONTROL, 16, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = io(pm::TIMER, 32, AccessSize::DwordAccess);
    fadt.x_gpe0_blk = io(pm::GPE0, 8 * pm::GPE0_LEN, AccessSize::ByteAccess);
    fadt.finalize()
}
