use std::collections::BTreeMap;

use synthvm_firmware::FirmwareImage;
use vmbus_protocol::Guid;

use super::*;
use crate::memory::{AddressRange, LOW_MMIO};
use crate::options::SmbiosConfig;

/// Reads `len` bytes of an item as firmware does without DMA.
fn read(device: &mut FwCfg, key: u16, len: usize) -> Vec<u8> {
    let memory =
        vm_memory::GuestMemoryMmap::from_ranges(&[(vm_memory::GuestAddress(0), 4096)]).unwrap();
    device.write_port(0, &key.to_le_bytes(), &memory);
    let next = |_| {
        let mut byte = [0];
        device.read_port(1, &mut byte);
        byte[0]
    };
    (0..len).map(next).collect()
}

fn files(device: &mut FwCfg) -> BTreeMap<String, Vec<u8>> {
    let word = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
    let count = word(&read(device, key::DIRECTORY, 4));
    let directory = read(device, key::DIRECTORY, 4 + 64 * count);
    let mut files = BTreeMap::new();
    for entry in directory[4..].chunks(64) {
        let name = String::from_utf8(entry[8..].to_vec()).unwrap();
        let key = u16::from_be_bytes([entry[4], entry[5]]);
        files.insert(name.trim_end_matches('\0').into(), read(device, key, word(entry)));
    }
    files
}

/// Builds the files of a machine with this many MiB and two vCPUs.
fn build_files(mib: u64) -> BTreeMap<String, Vec<u8>> {
    let layout = MemoryLayout::new(mib << 20);
    let platform = Platform {
        apic_ids: vec![0, 1],
        legacy_timer: true,
        mmio: [LOW_MMIO, layout.high_mmio],
        pci: Some(layout.pci_window()),
        tpm: None,
        presence: None,
        generation: None,
        hot_add: None,
        hibernation: false,
    };
    let source = FirmwareSource {
        image: FirmwareImage { code: Vec::new(), variables: Vec::new() },
        option_rom: None,
        kernel: None,
        initrd: None,
        cmdline: String::new(),
    };
    files(&mut build(&source, &layout, &platform, &identity()).unwrap())
}

fn identity() -> MachineIdentity {
    MachineIdentity { uuid: Guid::from_bytes([3; 16]), texts: SmbiosConfig::default() }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn number(bytes: &[u8]) -> u64 {
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(padded)
}

/// Carries out the script with each file at its address. Returns the files as they are in memory.
fn place(
    mut files: BTreeMap<String, Vec<u8>>,
    addresses: &BTreeMap<&str, u64>,
) -> BTreeMap<String, Vec<u8>> {
    let script = files["etc/table-loader"].clone();
    let name = |bytes: &[u8]| {
        let text = String::from_utf8(bytes[..56].to_vec()).unwrap();
        text.trim_end_matches('\0').to_owned()
    };
    let mut allocated = Vec::new();
    for command in script.chunks(128) {
        let operands = &command[4..];
        match command[0] {
            1 => allocated.push(name(operands)),
            2 => {
                let (file, target) = (name(operands), name(&operands[56..]));
                assert!(allocated.contains(&file) && allocated.contains(&target));
                let at = number(&operands[112..116]) as usize;
                let size = usize::from(operands[116]);
                let limit = files[&target].len() as u64;
                let field = &mut files.get_mut(&file).unwrap()[at..at + size];
                assert!(number(field) < limit, "a pointer into the file");
                let moved = number(field) + addresses[target.as_str()];
                field.copy_from_slice(&moved.to_le_bytes()[..size]);
            }
            3 => {
                let numbers = [56, 60, 64].map(|at| number(&operands[at..at + 4]) as usize);
                let [at, start, len] = numbers;
                let file = files.get_mut(&name(operands)).unwrap();
                assert_eq!(file[at], 0, "firmware adds the old checksum");
                file[at] = 0_u8.wrapping_sub(sum(&file[start..start + len]));
            }
            other => panic!("command {other}"),
        }
    }
    files
}

#[test]
fn test_tables_placed_by_the_script_are_found_and_have_good_checksums() {
    const TABLES: u64 = 0x7F00_0000;
    let addresses = BTreeMap::from([(RSDP_FILE, 0xF_5000), (TABLES_FILE, TABLES)]);
    let files = place(build_files(512), &addresses);
    let (rsdp, tables) = (&files[RSDP_FILE], &files[TABLES_FILE]);
    assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));
    let table = |address: u64| {
        let start = (address - TABLES) as usize;
        let len = number(&tables[start + 4..start + 8]) as usize;
        &tables[start..start + len]
    };
    let xsdt = table(number(&rsdp[24..32]));
    assert_eq!((&xsdt[..4], sum(xsdt)), (&b"XSDT"[..], 0));
    let listed: Vec<_> = xsdt[36..].chunks(8).map(|entry| table(number(entry))).collect();
    let names: Vec<_> = listed.iter().map(|table| &table[..4]).collect();
    assert_eq!(names, [b"FACP", b"APIC", b"WAET", b"SPCR"]);
    assert!(listed.iter().all(|table| sum(table) == 0));
    let fadt = listed[0];
    assert_eq!(number(&fadt[40..44]), number(&fadt[140..148]), "DSDT and X_DSDT");
    let dsdt = table(number(&fadt[140..148]));
    assert_eq!((&dsdt[..4], sum(dsdt)), (&b"DSDT"[..], 0));
    assert_eq!(table(number(&fadt[36..40]))[..4], *b"FACS");
    assert!(dsdt.windows(4).any(|name| name == b"PCI0"));
}

#[test]
fn test_memory_map_lists_ram_alone() {
    let ranges = |mib| -> Vec<AddressRange> {
        let entries = build_files(mib).remove("etc/e820").unwrap();
        assert!(entries.chunks(20).all(|entry| entry[16..] == [1, 0, 0, 0]));
        let range = |entry: &[u8]| {
            let start = number(&entry[..8]);
            AddressRange { start, end: start + number(&entry[8..16]) }
        };
        entries.chunks(20).map(range).collect()
    };
    for mib in [512, 3072, 5120] {
        let layout = MemoryLayout::new(mib << 20);
        let found = ranges(mib);
        assert_eq!(found[0], layout.low_ram);
        assert_eq!(found.get(1).copied().unwrap_or(layout.high_ram), layout.high_ram);
        assert_eq!(found.len(), 1 + usize::from(!layout.high_ram.is_empty()));
    }
}

#[test]
fn test_kernel_with_initrd_and_command_line_has_its_sizes() {
    let layout = MemoryLayout::new(64 << 20);
    let platform = Platform {
        apic_ids: vec![0],
        legacy_timer: true,
        mmio: [LOW_MMIO; 2],
        pci: None,
        tpm: None,
        presence: None,
        generation: None,
        hot_add: None,
        hibernation: false,
    };
    let source = FirmwareSource {
        image: FirmwareImage { code: Vec::new(), variables: Vec::new() },
        option_rom: None,
        kernel: Some(vec![7; 300].into()),
        initrd: Some(vec![8; 20].into()),
        cmdline: "quiet".into(),
    };
    let mut device = build(&source, &layout, &platform, &identity()).unwrap();
    assert_eq!(read(&mut device, key::KERNEL_SIZE, 4), 300_u32.to_le_bytes());
    assert_eq!(read(&mut device, key::INITRD_SIZE, 4), 20_u32.to_le_bytes());
    assert_eq!(read(&mut device, key::CMDLINE_SIZE, 4), 6_u32.to_le_bytes());
    assert_eq!(read(&mut device, key::CMDLINE_DATA, 6), b"quiet\0");
    assert_eq!(read(&mut device, key::KERNEL_DATA, 301), [vec![7; 300], vec![0]].concat());
}
