//! DSDT: power-off, processors, serial ports, clock, TPM, generation id, and the VMBus node under
//! its module device
//! (spec section 9.1).

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Device, EISAName, IO, Memory32Fixed, Method, Name,
    ONE, Package, Path, ResourceTemplate, Return, Scope, Store, ZERO,
};
use acpi_tables::sdt::Sdt;

use super::{Platform, generation, presence};
use crate::devices::{pci, rtc, serial};
use crate::memory::{AddressRange, IOAPIC_BASE, LAPIC_BASE};

/// `_STA` bits: present, enabled, shown in the UI, functioning.
pub(super) const STATUS_OK: u8 = 0xF;
/// The interrupt that the VMBus node claims. Guests use the SINT's vector instead, but Windows
/// requires the resource.
const VMBUS_IRQ: u8 = 5;

pub(super) fn build(platform: &Platform) -> Sdt {
    let mut dsdt = super::table(*b"DSDT", 2);
    let mut code = Vec::new();
    sleep_states(&mut code, platform.hibernation);
    let mut bus = Vec::new();
    for uid in 0..platform.apic_ids.len() {
        processor(&mut bus, uid);
    }
    serial_port(&mut bus, "COM1", 1, serial::COM1_PORT, serial::COM1_IRQ);
    serial_port(&mut bus, "COM2", 2, serial::COM2_PORT, serial::COM2_IRQ);
    interrupt_controllers(&mut bus);
    clock(&mut bus);
    if let Some(registers) = platform.tpm {
        tpm(&mut bus, registers, platform.presence);
    }
    if let Some(page) = platform.generation {
        generation::device(&mut bus, page);
        generation::event(&mut code);
    }
    module_device(&mut bus, platform);
    if let Some(window) = platform.pci {
        pci_root(&mut bus, window);
    }
    Scope::new("\\_SB_".into(), vec![&Raw(bus)]).to_aml_bytes(&mut code);
    dsdt.append_slice(&code);
    dsdt
}

/// A piece of AML that is already encoded.
pub(super) struct Raw(pub(super) Vec<u8>);

impl Raw {
    /// Encodes a piece.
    pub(super) fn of(piece: &dyn Aml) -> Raw {
        let mut code = Vec::new();
        piece.to_aml_bytes(&mut code);
        Raw(code)
    }
}

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

/// Writes the sleep states: running (`_S0`) and soft-off (`_S5`), with SLP_TYP 0 in PM1_CNT, and
/// hibernation (`_S4`) with SLP_TYP 1.
fn sleep_states(code: &mut Vec<u8>, hibernation: bool) {
    let mut state = |name: &str, kind: &dyn Aml| {
        Name::new(name.into(), &Package::new(vec![kind, &ZERO, &ZERO, &ZERO])).to_aml_bytes(code);
    };
    state("\\_S0_", &ZERO);
    if hibernation {
        state("\\_S4_", &ONE);
    }
    state("\\_S5_", &ZERO);
}

fn processor(code: &mut Vec<u8>, uid: usize) {
    Device::new(
        Path::new(&format!("C{uid:03X}")),
        vec![&Name::new("_HID".into(), &"ACPI0007"), &Name::new("_UID".into(), &uid)],
    )
    .to_aml_bytes(code);
}

fn serial_port(code: &mut Vec<u8>, name: &'static str, uid: u8, port: u16, irq: u8) {
    Device::new(
        name.into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &uid),
            &Name::new("_DDN".into(), &name),
            &Name::new("_STA".into(), &STATUS_OK),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&IO::new(port, port, 1, 8), &LegacyIrq(irq)]),
            ),
        ],
    )
    .to_aml_bytes(code);
}

/// Writes the interrupt controllers, so that no guest gives their addresses to something else (spec
/// firmware-windows section D2).
fn interrupt_controllers(code: &mut Vec<u8>) {
    let page = |base: u64| Memory32Fixed::new(true, base as u32, 0x1000);
    let (local, io) = (page(LAPIC_BASE), page(IOAPIC_BASE));
    Device::new(
        "APIC".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0003")),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&local, &io])),
        ],
    )
    .to_aml_bytes(code);
}

fn clock(code: &mut Vec<u8>) {
    let ports = IO::new(rtc::PORT, rtc::PORT, 1, 2);
    Device::new(
        "RTC_".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0B00")),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports])),
        ],
    )
    .to_aml_bytes(code);
}

fn tpm(code: &mut Vec<u8>, registers: AddressRange, presence_page: Option<AddressRange>) {
    let mut interface = Vec::new();
    if let Some(page) = presence_page {
        presence::interface(&mut interface, page);
    }
    let registers = Memory32Fixed::new(true, registers.start as u32, registers.len() as u32);
    Device::new(
        "TPM_".into(),
        vec![
            &Name::new("_HID".into(), &"MSFT0101"),
            &Name::new("_STR".into(), &"TPM 2.0 Device"),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_STA".into(), &STATUS_OK),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&registers])),
            &Raw(interface),
        ],
    )
    .to_aml_bytes(code);
}

fn module_device(code: &mut Vec<u8>, platform: &Platform) {
    let [low, high] = platform.mmio;
    let cacheable = AddressSpaceCacheable::NotCacheable;
    let low =
        AddressSpace::new_memory(cacheable, true, low.start as u32, (low.end - 1) as u32, None);
    let high = AddressSpace::new_memory(cacheable, true, high.start, high.end - 1, None);
    let mut node = Vec::new();
    vmbus(&mut node);
    Device::new(
        "VMOD".into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0004"),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&low, &high])),
            &Raw(node),
        ],
    )
    .to_aml_bytes(code);
}

/// Writes the root of the one PCI bus. Its window is apart from that of VMBus: Linux drops one of
/// two nodes that claim the same range (spec firmware-windows section B6.1).
fn pci_root(code: &mut Vec<u8>, window: AddressRange) {
    let (start, end) = (window.start as u32, (window.end - 1) as u32);
    let memory =
        AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, start, end, None);
    let ports = pci::CONFIG_PORT;
    Device::new(
        "PCI0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_BBN".into(), &ZERO),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &AddressSpace::new_bus_number(0_u16, 0),
                    &IO::new(ports, ports, 1, 8),
                    &AddressSpace::new_io(0_u16, ports - 1, None),
                    &AddressSpace::new_io(ports + 8, u16::MAX, None),
                    &memory,
                ]),
            ),
        ],
    )
    .to_aml_bytes(code);
}

/// Writes the VMBus node. Its `_HID` is a string that ASL compilers refuse, but every guest looks
/// for it.
fn vmbus(code: &mut Vec<u8>) {
    let status = Path::new("STA_");
    let disabled = 0xDu8;
    Device::new(
        "VMBS".into(),
        vec![
            &Name::new("STA_".into(), &STATUS_OK),
            &Name::new("_ADR".into(), &ZERO),
            &Name::new("_DDN".into(), &"VMBUS"),
            &Name::new("_HID".into(), &"VMBus"),
            &Name::new("_UID".into(), &ZERO),
            &Method::new("_DIS".into(), 0, false, vec![&And::new(&status, &status, &disabled)]),
            &Method::new("_PS0".into(), 0, false, vec![&Store::new(&status, &STATUS_OK)]),
            &Method::new("_PS3".into(), 0, false, vec![&Store::new(&status, &disabled)]),
            &Method::new("_STA".into(), 0, false, vec![&Return::new(&status)]),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&LegacyIrq(VMBUS_IRQ)])),
        ],
    )
    .to_aml_bytes(code);
}

/// An IRQ descriptor in the short form: edge-triggered, active high, exclusive.
struct LegacyIrq(u8);

impl Aml for LegacyIrq {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.byte(0x23);
        sink.word(1 << self.0);
        sink.byte(1);
    }
}
