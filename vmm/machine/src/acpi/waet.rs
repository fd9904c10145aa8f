//! WAET: tells Windows that one read of the PM timer is enough.

use acpi_tables::sdt::Sdt;

const RTC_GOOD: u32 = 1;
const PM_TIMER_GOOD: u32 = 2;

pub(super) fn build() -> Sdt {
    let mut waet = super::table(*b"WAET", 1);
    waet.append_slice(&(RTC_GOOD | PM_TIMER_GOOD).to_le_bytes());
    waet
}
