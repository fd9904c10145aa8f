//! The devices of firmware: up to 128 accesses of any width and value to the ports of PCI
//! configuration and of fw_cfg, and to the flash. Outcomes are compared with naive models.

use std::cell::OnceCell;

use synthvm_firmware::{Flash, FwCfg, OptionRom, PciBus, Variables, key};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::firmware_model::{FlashModel, Transfer};
use crate::input::Input;

const MAX_STEPS: usize = 128;
/// Bytes of RAM at 0, and of RAM at 4 GiB.
const RAM: [usize; 2] = [64 << 10, 4 << 10];
const HIGH: u64 = 1 << 32;
const FLASH: usize = 16 << 10;
const ROM: usize = 5000;

thread_local! {
    static MEMORY: OnceCell<GuestMemoryMmap<()>> = const { OnceCell::new() };
}

struct World {
    memory: GuestMemoryMmap<()>,
    fw_cfg: FwCfg,
    flash: Flash,
    flash_model: FlashModel,
    pci: PciBus,
    /// A boot failure was reported since the last reset.
    has_failed: bool,
}

/// Layout: steps, each an operation and its operands; see [`World::step`].
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
}

impl World {
    fn new() -> World {
        let memory = MEMORY.with(|memory| memory.get_or_init(new_memory).clone());
        let mut fw_cfg = FwCfg::new();
        fw_cfg.set(key::KERNEL_DATA, item(0x11)).expect("a small item");
        for index in 0..3 {
            fw_cfg.add_file(&format!("file{index}"), item(0x20 + index)).expect("a new name");
        }
        let bytes = vec![0xA5; FLASH];
        let flash = Flash::new(Variables::volatile(&bytes).expect("memory"));
        let rom = OptionRom::new(rom()).expect("a whole header");
        let pci = PciBus::i440fx(0x400, Some(rom));
        let flash_model = FlashModel::new(bytes);
        World { memory, fw_cfg, flash, flash_model, pci, has_failed: false }
    }

    /// Operations: a port of fw_cfg; a transfer with a control block; the flash; PCI
    /// configuration; PCI memory; a reset.
    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 8 {
            0 => self.port(input),
            1 | 2 => self.transfer(input),
            3 | 4 => self.flash(input),
            5 => self.config(input),
            6 => self.pci_memory(input),
            _ => self.reset(),
        }
    }

    fn port(&mut self, input: &mut Input<'_>) {
        let offset = u16::from(input.u8() % 16);
        let data = input.u32().to_le_bytes();
        let width = [1, 2, 4][usize::from(input.u8() % 3)];
        self.fw_cfg.write_port(offset, &data[..width], &self.memory);
        let mut read = [0; 4];
        self.fw_cfg.read_port(offset, &mut read[..width]);
    }

    fn transfer(&mut self, input: &mut Input<'_>) {
        let at = |input: &mut Input<'_>| {
            let offset = u64::from(input.u16());
            match input.u8() % 4 {
                0 | 1 => offset,
                2 => HIGH + offset % 5000,
                _ => u64::MAX - offset,
            }
        };
        let (block, address) = (at(input), at(input));
        let key = match input.u8() % 4 {
            0 => key::KERNEL_DATA,
            1 => key::FIRST_FILE + u16::from(input.u8() % 4),
            2 => key::DIRECTORY,
            _ => input.u16(),
        };
        let flags = u32::from(input.u8() & 0x1F);
        let len = if input.u8() & 1 == 0 { u32::from(input.u16()) } else { input.u32() };
        let control = u32::from(key) << 16 | flags;
        let words = [control.to_be_bytes(), len.to_be_bytes()].concat();
        let words = [&words[..], &address.to_be_bytes()].concat();
        let is_placed = in_ram(block, 16);
        if is_placed {
            self.memory.write_slice(&words, GuestAddress(block)).expect("RAM");
        }
        let before = self.snapshot();
        let [high, low] = [block >> 32, block].map(|half| (half as u32).to_be_bytes());
        self.fw_cfg.write_port(4, &high, &self.memory);
        self.fw_cfg.write_port(8, &low, &self.memory);
        let after = self.snapshot();
        let transfer = Transfer { block, address, len: len.into(), is_read: flags & 2 != 0 };
        if !is_placed {
            assert!(before == after, "a transfer without a control block wrote");
            return;
        }
        let outcome = self.memory.read_obj::<u32>(GuestAddress(block)).expect("RAM");
        let is_ok = u32::from_be(outcome) == 0;
        assert!(is_ok || u32::from_be(outcome) == 1);
        let allowed = transfer.check(is_ok, in_ram(address, len.into()), flags & 0x10 != 0);
        for (index, (old, new)) in before.iter().zip(&after).enumerate() {
            let place = if index < RAM[0] { index as u64 } else { HIGH + (index - RAM[0]) as u64 };
            assert!(old == new || allowed.iter().any(|range| range.contains(&place)));
        }
    }

    fn flash(&mut self, input: &mut Input<'_>) {
        let offset = match input.u8() % 4 {
            0 => u64::MAX - u64::from(input.u8()),
            1 => FLASH as u64 - 4 + u64::from(input.u8() % 8),
            _ => u64::from(input.u16()) % FLASH as u64,
        };
        let value = match input.u8() % 4 {
            0 => input.u8(),
            choice => [0x10, 0x20, 0xD0, 0xFF, 0x70, 0x90, 0x50, 0x40]
                [usize::from((choice.wrapping_mul(3) ^ input.u8()) % 8)],
        };
        let data = [value, 1, 2, 3];
        let data = &data[..[1, 2, 4][usize::from(input.u8() % 3)]];
        self.flash.write(offset, data);
        self.flash_model.write(offset, data);
        assert_eq!(self.flash.is_array(), self.flash_model.is_array());
        let mut read = [0; 8];
        self.flash.read(offset, &mut read);
        if let Some(expected) = self.flash_model.read(offset) {
            assert_eq!(read, expected);
        }
    }

    fn config(&mut self, input: &mut Input<'_>) {
        let address = match input.u8() % 4 {
            0 => input.u32(),
            _ => {
                let devfn = [0_u32, 0x08, 0x0B, 0x10][usize::from(input.u8() % 4)];
                1 << 31 | devfn << 8 | u32::from(input.u8())
            }
        };
        self.pci.set_address(address);
        let offset = input.u8() % 4;
        let data = input.u32().to_le_bytes();
        let width = [1, 2, 4][usize::from(input.u8() % 3)];
        if input.u8() & 1 == 0 {
            let before = self.boot_status();
            self.pci.set_address(address);
            self.pci.write_data(offset, &data[..width]);
            if self.pci.take_boot_failure().is_some() {
                assert!(before == 0 && !self.has_failed, "only the first report counts");
                self.has_failed = true;
            }
            assert!(before != 0xFF || self.boot_status() == 0xFF, "it is closed until a reset");
            self.pci.set_address(address);
        }
        let mut read = [0; 4];
        self.pci.read_data(offset, &mut read[..width]);
        let window = self.pci.rom().expect("a ROM").window();
        assert!(self.pci.rom_address().is_none_or(|address| address % window == 0));
        self.pci.set_address(1 << 31);
        self.pci.read_data(0, &mut read);
        assert_eq!(read, 0x1237_8086_u32.to_le_bytes(), "identities are read-only");
    }

    /// Returns the boot status register.
    fn boot_status(&mut self) -> u8 {
        self.pci.set_address(1 << 31 | 0x1048);
        let mut status = [0];
        self.pci.read_data(0, &mut status);
        status[0]
    }

    fn pci_memory(&mut self, input: &mut Input<'_>) {
        let base = self.pci.rom_address();
        let offset = u64::from(input.u16() % 9000);
        let mut data = [0; 8];
        let width = 1 << (input.u8() % 4);
        let address = base.unwrap_or_default() + offset;
        self.pci.read_memory(address, &mut data[..width]);
        let rom = self.pci.rom().expect("a ROM").bytes();
        for (index, byte) in data[..width].iter().enumerate() {
            let expected = base.and_then(|_| rom.get(offset as usize + index)).unwrap_or(&0xFF);
            assert_eq!(byte, expected);
        }
    }

    fn reset(&mut self) {
        self.fw_cfg.reset();
        self.flash.reset();
        self.flash_model.reset();
        self.pci.reset();
        self.has_failed = false;
        assert!(self.pci.rom_address().is_none() && self.flash.is_array());
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = vec![0; RAM[0] + RAM[1]];
        let (low, high) = bytes.split_at_mut(RAM[0]);
        self.memory.read_slice(low, GuestAddress(0)).expect("RAM");
        self.memory.read_slice(high, GuestAddress(HIGH)).expect("RAM");
        bytes
    }
}

fn new_memory() -> GuestMemoryMmap<()> {
    let ranges = [(GuestAddress(0), RAM[0]), (GuestAddress(HIGH), RAM[1])];
    GuestMemoryMmap::from_ranges(&ranges).expect("memory")
}

fn in_ram(address: u64, len: u64) -> bool {
    let inside = |start: u64, size: usize| {
        address >= start && address.checked_add(len).is_some_and(|end| end <= start + size as u64)
    };
    inside(0, RAM[0]) || inside(HIGH, RAM[1])
}

fn item(seed: u16) -> Vec<u8> {
    (0..usize::from(seed) * 97).map(|index| index as u8 ^ seed as u8).collect()
}

fn rom() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..ROM).map(|index| index as u8).collect();
    bytes[..2].copy_from_slice(&[0x55, 0xAA]);
    bytes[0x18..0x1A].copy_from_slice(&[0x1C, 0]);
    bytes[0x1C..0x20].copy_from_slice(b"PCIR");
    bytes
}
