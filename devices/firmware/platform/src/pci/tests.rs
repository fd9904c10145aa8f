use super::*;

fn address(devfn: u8, register: u8) -> u32 {
    ENABLE | u32::from(devfn) << 8 | u32::from(register)
}

fn read(bus: &mut PciBus, devfn: u8, register: u8) -> u32 {
    bus.set_address(address(devfn, register));
    let mut data = [0; 4];
    bus.read_data(0, &mut data);
    u32::from_le_bytes(data)
}

fn write(bus: &mut PciBus, devfn: u8, register: u8, value: u32) {
    bus.set_address(address(devfn, register));
    bus.write_data(0, &value.to_le_bytes());
}

/// Returns an option ROM of `len` bytes for 1414:5353.
fn rom(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[..2].copy_from_slice(&[0x55, 0xAA]);
    bytes[0x18] = 0x1C;
    bytes[0x1C..0x24].copy_from_slice(b"PCIR\x14\x14\x53\x53");
    bytes[0x29..0x2C].copy_from_slice(&[0, 0, 0xFF]);
    bytes[len - 1] = 0x5A;
    bytes
}

#[test]
fn test_bus_presets_what_firmware_reads_first() {
    let mut bus = PciBus::i440fx(0x400, None);
    assert_eq!(read(&mut bus, 0, 0), 0x1237_8086);
    assert_eq!(read(&mut bus, 0x08, 0), 0x7000_8086);
    assert_eq!(read(&mut bus, 0x08, 0x0C) >> 16, 0x80, "more than one function");
    assert_eq!(read(&mut bus, 0x0B, 0), 0x7113_8086);
    assert_eq!((read(&mut bus, 0x0B, 0x40), read(&mut bus, 0x0B, 0x80)), (0x401, 1));
}

#[test]
fn test_bus_of_cloudhv_has_its_host_bridge_and_the_option_rom() {
    let mut bus = PciBus::cloudhv(Some(OptionRom::new(rom(512)).unwrap()));
    assert_eq!(read(&mut bus, 0, 0), 0x0D57_8086);
    assert_eq!(read(&mut bus, 0x08, 0), u32::MAX);
    assert_eq!(read(&mut bus, option_rom::DEVFN, 0), 0x5353_1414);
}

#[test]
fn test_functions_that_do_not_exist_read_as_all_ones() {
    let mut bus = PciBus::i440fx(0x400, None);
    for devfn in [0x01, 0x09, 0x10, 0xFF] {
        write(&mut bus, devfn, 4, 7);
        assert_eq!(read(&mut bus, devfn, 0), u32::MAX);
    }
    for address in [0x0000_0000, 0x8001_0000, 0x7F00_0000] {
        bus.set_address(address);
        let mut data = [0; 4];
        bus.read_data(0, &mut data);
        assert_eq!(data, [0xFF; 4], "{address:#x}");
    }
}

#[test]
fn test_data_register_accesses_of_each_width_stay_in_their_dword() {
    let mut bus = PciBus::i440fx(0x400, None);
    bus.set_address(address(0, 0));
    let mut byte = [0];
    bus.read_data(3, &mut byte);
    assert_eq!(byte, [0x12]);
    let mut word = [0; 2];
    bus.read_data(2, &mut word);
    assert_eq!(word, [0x37, 0x12]);
    let mut over = [0; 4];
    bus.read_data(2, &mut over);
    assert_eq!(over, [0x37, 0x12, 0xFF, 0xFF]);
    bus.set_address(address(0, 0x58));
    bus.write_data(1, &[0x30, 0x31, 0x32, 0x33]);
    assert_eq!(read(&mut bus, 0, 0x58), 0x3231_3000);
    assert_eq!(read(&mut bus, 0, 0x5C), 0);
}

#[test]
fn test_reset_restores_every_register() {
    let mut bus = PciBus::i440fx(0x400, Some(OptionRom::new(rom(512)).unwrap()));
    let mut before = Vec::new();
    for devfn in [0, 0x08, 0x0B, 0x10] {
        for register in (0..=0xFC).step_by(4) {
            before.push(read(&mut bus, devfn, register));
            write(&mut bus, devfn, register, u32::MAX);
            write(&mut bus, devfn, register, 0);
        }
    }
    bus.reset();
    assert_eq!(bus.address(), 0);
    let mut after = Vec::new();
    for devfn in [0, 0x08, 0x0B, 0x10] {
        for register in (0..=0xFC).step_by(4) {
            after.push(read(&mut bus, devfn, register));
        }
    }
    assert_eq!(before, after);
}

#[test]
fn test_rom_bar_tells_its_size_and_decodes_only_when_both_enabled() {
    let mut bus = PciBus::i440fx(0x400, Some(OptionRom::new(rom(5000)).unwrap()));
    assert_eq!(read(&mut bus, 0x10, 0), 0x5353_1414);
    assert_eq!(read(&mut bus, 0x10, 8) >> 8, 0xFF_0000);
    write(&mut bus, 0x10, 0x30, !1);
    assert_eq!(read(&mut bus, 0x10, 0x30), !0x1FFF);
    write(&mut bus, 0x10, 0x30, 0xC000_0001);
    assert_eq!(bus.rom_address(), None, "memory space is off");
    write(&mut bus, 0x10, 4, 2);
    assert_eq!(bus.rom_address(), Some(0xC000_0000));
    let mut data = [0; 4];
    bus.read_memory(0xC000_0000, &mut data);
    assert_eq!(data[..2], [0x55, 0xAA]);
    bus.read_memory(0xC000_0000 + 4998, &mut data);
    assert_eq!(data, [0, 0x5A, 0xFF, 0xFF]);
    bus.read_memory(0xBFFF_FFFF, &mut data);
    assert_eq!(data, [0xFF; 4]);
    write(&mut bus, 0x10, 0x30, 0xC000_0000);
    bus.read_memory(0xC000_0000, &mut data);
    assert_eq!((bus.rom_address(), data), (None, [0xFF; 4]));
}

/// The dword of the boot status register.
const BOOT_STATUS: u8 = 0x48;

#[test]
fn test_boot_status_reports_the_first_failure_after_each_reset() {
    let mut bus = PciBus::i440fx(0x400, Some(OptionRom::new(rom(512)).unwrap()));
    for (value, failure) in [(1, BootFailure::NoOption), (2, BootFailure::Shell)] {
        assert_eq!(read(&mut bus, 0x10, BOOT_STATUS), 0);
        for wrong in [0, 3, 0x80, 0x100] {
            write(&mut bus, 0x10, BOOT_STATUS, wrong);
            assert_eq!(bus.take_boot_failure(), None, "{wrong}");
        }
        write(&mut bus, 0x10, BOOT_STATUS, value);
        assert_eq!(bus.take_boot_failure(), Some(failure));
        assert_eq!((bus.take_boot_failure(), read(&mut bus, 0x10, BOOT_STATUS)), (None, value));
        write(&mut bus, 0x10, BOOT_STATUS, 3 - value);
        assert_eq!(bus.take_boot_failure(), None);
        bus.reset();
    }
}

#[test]
fn test_boot_status_that_is_closed_reports_nothing_until_a_reset() {
    let mut bus = PciBus::cloudhv(Some(OptionRom::new(rom(512)).unwrap()));
    write(&mut bus, 0x10, BOOT_STATUS, 0xFF);
    for value in [0, 1, 2, 0xFF] {
        write(&mut bus, 0x10, BOOT_STATUS, value);
        assert_eq!(bus.take_boot_failure(), None);
        assert_eq!(read(&mut bus, 0x10, BOOT_STATUS), 0xFF);
    }
    bus.reset();
    write(&mut bus, 0x10, BOOT_STATUS, 1);
    assert_eq!(bus.take_boot_failure(), Some(BootFailure::NoOption));
}

#[test]
fn test_option_rom_with_bad_header_is_refused() {
    let refused = |bytes: Vec<u8>| OptionRom::new(bytes).unwrap_err();
    assert_eq!(refused(vec![0; 511]), OptionRomError::Size(511));
    assert_eq!(refused(vec![0; MAX_OPTION_ROM_BYTES + 1]), OptionRomError::Size((16 << 20) + 1));
    assert_eq!(refused(vec![0; 512]), OptionRomError::Signature);
    let mut bytes = rom(512);
    bytes[0x1C] = 0;
    assert_eq!(refused(bytes.clone()), OptionRomError::DataStructure);
    bytes[0x18..0x1A].copy_from_slice(&0xFFF0_u16.to_le_bytes());
    assert_eq!(refused(bytes), OptionRomError::DataStructure);
}
