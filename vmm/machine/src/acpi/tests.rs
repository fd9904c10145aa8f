use super::*;
use crate::memory::{
    GENERATION_MMIO, HIGH_MMIO_SIZE, HIGH_RAM_BASE, LOW_MMIO, MemoryLayout, PRESENCE_MMIO,
    TPM_MMIO, allocate,
};

fn platform(cpus: u32) -> Platform {
    let high = AddressRange { start: HIGH_RAM_BASE, end: HIGH_RAM_BASE + HIGH_MMIO_SIZE };
    Platform {
        apic_ids: (0..cpus).collect(),
        legacy_timer: true,
        mmio: [LOW_MMIO, high],
        pci: None,
        tpm: None,
        presence: None,
        generation: None,
        hot_add: None,
        hibernation: false,
    }
}

fn read(memory: &GuestMemory, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

fn read_table(memory: &GuestMemory, at: u64) -> Vec<u8> {
    let len: u32 = memory.read_obj(GuestAddress(at + 4)).unwrap();
    read(memory, at, len as usize)
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Writes the tables and returns them by signature, following the pointers that a guest follows.
fn tables(cpus: u32) -> Vec<Vec<u8>> {
    tables_of(&platform(cpus))
}

fn tables_of(platform: &Platform) -> Vec<Vec<u8>> {
    let memory = allocate(&MemoryLayout::new(16 << 20), false).unwrap();
    let rsdp = read(&memory, write(&memory, platform).unwrap(), 36);
    assert_eq!((&rsdp[..8], sum(&rsdp[..20]), sum(&rsdp)), (&b"RSD PTR "[..], 0, 0));
    let xsdt = read_table(&memory, u64_at(&rsdp, 24));
    let mut tables: Vec<Vec<u8>> =
        xsdt[36..].chunks(8).map(|entry| read_table(&memory, u64_at(entry, 0))).collect();
    let dsdt = u64_at(&tables[0], 140);
    tables.push(read_table(&memory, dsdt));
    tables.push(xsdt);
    tables
}

#[test]
fn test_tables_one_and_sixty_four_processors_have_good_checksums() {
    for cpus in [1, 64] {
        for table in tables(cpus) {
            assert_eq!(sum(&table), 0, "{}", String::from_utf8_lossy(&table[..4]));
        }
    }
}

#[test]
fn test_fadt_offers_power_off_and_reset_and_is_not_hardware_reduced() {
    let fadt = &tables(1)[0];
    assert_eq!(&fadt[..4], b"FACP");
    let flags = u32::from_le_bytes(fadt[112..116].try_into().unwrap());
    assert_eq!(flags & (1 << 20), 0, "HW_REDUCED");
    assert_ne!(flags & (1 << 10), 0, "RESET_REG_SUP");
    assert_eq!(u32::from_le_bytes(fadt[64..68].try_into().unwrap()), 0x404, "PM1a_CNT_BLK");
    assert_eq!((u64_at(fadt, 120), fadt[128]), (0x433, 1), "RESET_REG and its value");
    assert_eq!(u16::from_le_bytes([fadt[46], fadt[47]]), 9, "SCI_INT");
}

#[test]
fn test_madt_lists_every_processor_once() {
    let madt = &tables(5)[1];
    let mut ids = Vec::new();
    let mut at = 44;
    while at < madt.len() {
        if madt[at] == 0 {
            ids.push(madt[at + 3]);
        }
        at += usize::from(madt[at + 1]);
    }
    assert_eq!(ids, [0, 1, 2, 3, 4]);
    assert_eq!(at, madt.len());
}

#[test]
fn test_dsdt_has_vmbus_with_resources_under_its_module_device() {
    let dsdt = &tables(2)[4];
    let find = |needle: &[u8]| dsdt.windows(needle.len()).position(|window| window == needle);
    let module = find(b"VMOD").unwrap();
    let bus = find(b"VMBS").unwrap();
    assert!(find(b"VMBus\0").unwrap() > bus && bus > module);
    let low = [
        &(LOW_MMIO.start as u32).to_le_bytes()[..],
        &((LOW_MMIO.end - 1) as u32).to_le_bytes()[..],
    ]
    .concat();
    assert!(find(&low).unwrap() > module);
    assert!(find(b"_S0_").is_some() && find(b"_S5_").is_some());
    // PNP0003 with the pages of the local APICs and of the IOAPIC.
    let apic = find(b"APIC\x08_HID\x0C\x41\xD0\x00\x03").unwrap();
    let page = |base: u8| [0x86, 9, 0, 1, 0, 0, base, 0xFE, 0, 0x10, 0, 0];
    assert!(find(&[page(0xE0), page(0xC0)].concat()).unwrap() > apic);
    assert!(find(b"_DDN\x0DCOM1\0").is_some());
}

#[test]
fn test_hibernation_has_its_sleep_type_only_if_it_is_offered() {
    // A package of four integers, of which the first is SLP_TYP.
    let state = |name: &[u8], kind: u8| [b"\x08\\", name, &[0x12, 6, 4, kind, 0, 0, 0]].concat();
    let has = |dsdt: &[u8], part: &[u8]| dsdt.windows(part.len()).any(|window| window == part);
    let offered = &tables_of(&Platform { hibernation: true, ..platform(1) })[4];
    assert!(has(offered, &state(b"_S4_", 1)));
    assert!(has(offered, &state(b"_S5_", 0)));
    assert!(!has(&tables(1)[4], b"_S4_"));
}

#[test]
fn test_spcr_names_the_first_serial_port_at_115200_baud() {
    let spcr = &tables(1)[3];
    assert_eq!((&spcr[..4], spcr.len(), spcr[8]), (&b"SPCR"[..], 80, 2));
    assert_eq!(spcr[36], 0, "a full 16550");
    assert_eq!((&spcr[40..44], u64_at(spcr, 44)), (&[1, 8, 0, 1][..], 0x3F8), "I/O port");
    assert_eq!((spcr[52], spcr[53], spcr[54]), (3, 4, 4), "interrupt");
    assert_eq!((spcr[58], spcr[60]), (7, 1), "baud and stop bits");
    assert_eq!(spcr[64..68], [0xFF; 4], "no PCI device");
}

#[test]
fn test_presence_interface_is_in_the_tpm_only_with_its_page() {
    // The interface's UUID in the order of `ToUUID`, and the packed fields' region.
    let uuid = b"\xA6\xFA\xDD\x3D\x1B\x36\xB4\x4E\xA4\x24\x8D\x10\x08\x9D\x16\x53";
    let region = b"\x5B\x80PPRG\0\x0C\0\x50\xD4\xFE\x0B\x15\x01";
    let has = |platform: &Platform, part: &[u8]| {
        tables_of(platform)[5].windows(part.len()).any(|window| window == part)
    };
    let without = Platform { tpm: Some(TPM_MMIO), ..platform(1) };
    let with = Platform { presence: Some(PRESENCE_MMIO), ..without.clone() };
    for part in [&uuid[..], region, b"_DSM\x0C"] {
        assert!(has(&with, part) && !has(&without, part), "{part:x?}");
    }
}

#[test]
fn test_tpm_has_a_device_and_a_table_that_names_its_control_area() {
    let platform = Platform { tpm: Some(TPM_MMIO), ..platform(1) };
    let tables = tables_of(&platform);
    let tpm2 = &tables[4];
    assert_eq!((&tpm2[..4], tpm2.len(), sum(tpm2)), (&b"TPM2"[..], 64, 0));
    assert_eq!(u64_at(tpm2, 40), 0xFED4_0040, "control area");
    assert_eq!(u32::from_le_bytes(tpm2[48..52].try_into().unwrap()), 7, "start method");
    let dsdt = &tables[5];
    let find = |needle: &[u8]| dsdt.windows(needle.len()).position(|window| window == needle);
    assert!(find(b"MSFT0101\0").is_some());
    // Memory32Fixed, 9 bytes, read and write.
    let registers = [0x86, 9, 0, 1, 0, 0, 0xD4, 0xFE, 0, 0x10, 0, 0];
    assert!(find(&registers).is_some());
    assert!(!self::tables(1).iter().any(|table| table.starts_with(b"TPM2")));
}

#[test]
fn test_generation_id_has_a_device_with_its_address_and_an_event_that_notifies_it() {
    let tables = tables_of(&Platform { generation: Some(GENERATION_MMIO), ..platform(1) });
    let dsdt = &tables[4];
    let find = |needle: &[u8]| dsdt.windows(needle.len()).position(|window| window == needle);
    // A package of two dwords; the high half is zero.
    let address = [&b"ADDR\x12\x08\x02\x0C"[..], &[0, 0x60, 0xD4, 0xFE], &[0]].concat();
    let device = find(b"GENC\x08_HID\x0DSYNT0001\0").unwrap();
    assert!(find(b"VM_Gen_Counter\0").unwrap() > device && find(b"VMGENCTR\0").is_some());
    assert!(find(&address).unwrap() > device);
    // Notify(\\_SB.GENC, 0x80) in \\_GPE._E00.
    let event = find(b"\\_GPE").unwrap();
    let notify = find(b"_E00\0\x86\\\x2E_SB_GENC\x0A\x80").unwrap();
    assert!(notify > event && notify < device);
    assert!(!self::tables(1)[4].windows(4).any(|name| name == b"GENC"));
}

#[test]
fn test_srat_announces_memory_that_can_be_added_and_exists_only_with_it() {
    let layout = MemoryLayout::with_hot_add(5 << 30, 3 << 30);
    let mut platform = Platform { hot_add: Some(layout), ..platform(2) };
    platform.apic_ids.push(300);
    let tables = tables_of(&platform);
    let srat = tables.iter().find(|table| table.starts_with(b"SRAT")).unwrap();
    assert_eq!(sum(srat), 0);
    let (mut apic_ids, mut memory, mut at) = (Vec::new(), Vec::new(), 48);
    while at < srat.len() {
        let word = |offset: usize| u32::from_le_bytes(srat[at + offset..][..4].try_into().unwrap());
        match srat[at] {
            0 => apic_ids.push((u32::from(srat[at + 3]), word(4))),
            1 => memory.push((u64_at(srat, at + 8), u64_at(srat, at + 16), word(28))),
            2 => apic_ids.push((word(8), word(12))),
            kind => panic!("an entry of type {kind}"),
        }
        at += usize::from(srat[at + 1]);
    }
    assert_eq!(at, srat.len());
    assert_eq!(apic_ids, [(0, 1), (1, 1), (300, 1)]);
    let entry = |range: AddressRange, flags| (range.start, range.len(), flags);
    let expected = [entry(layout.low_ram, 1), entry(layout.high_ram, 1), entry(layout.hot_add, 3)];
    assert_eq!(memory, expected);
    assert!(!self::tables(1).iter().any(|table| table.starts_with(b"SRAT")));
}
