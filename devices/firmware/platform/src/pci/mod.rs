//! PCI configuration access (mechanism #1, ports 0xCF8 and 0xCFC) to one bus without bridges,
//! shaped like an i440FX (spec firmware-windows section B3).

mod boot_status;
mod cloudhv;
mod function;
mod i440fx;
mod option_rom;
#[cfg(test)]
mod tests;

use std::fmt;

use self::function::Function;

pub use self::boot_status::BootFailure;
pub use self::option_rom::{MAX_OPTION_ROM_BYTES, OptionRom, OptionRomError};

/// Bit 31 of the address register: the data register accesses configuration space.
const ENABLE: u32 = 1 << 31;
/// The bits of the address register that exist: enable, bus, device, function, register.
const ADDRESS_BITS: u32 = 0x80FF_FFFC;

/// The configuration registers of all functions, and the address register.
pub struct PciBus {
    address: u32,
    /// Functions by device and function number (`device << 3 | function`), all on bus 0.
    functions: Vec<(u8, Function)>,
    rom: Option<OptionRom>,
    /// The report that no caller has taken.
    boot_failure: Option<BootFailure>,
}

impl PciBus {
    /// Returns a bus in its reset state, with a host bridge, an ISA bridge and a power management
    /// function; and with one device for `rom`.
    ///
    /// `pm_base` is the I/O port of the power management block, which is a multiple of 64. The
    /// power management function is preset to it and enabled, so firmware leaves it in place.
    #[must_use]
    pub fn i440fx(pm_base: u16, rom: Option<OptionRom>) -> PciBus {
        let mut functions = i440fx::functions(pm_base).to_vec();
        if let Some(rom) = &rom {
            functions.push((option_rom::DEVFN, rom.function()));
        }
        PciBus { address: 0, functions, rom, boot_failure: None }
    }

    /// Returns a bus in its reset state with the host bridge by which `CLOUDHV.fd` recognizes its
    /// machine, and with one device for `rom` (spec firmware-windows section B7).
    #[must_use]
    pub fn cloudhv(rom: Option<OptionRom>) -> PciBus {
        let rom_function = rom.as_ref().map(|rom| (option_rom::DEVFN, rom.function()));
        let functions = std::iter::once(cloudhv::host_bridge()).chain(rom_function).collect();
        PciBus { address: 0, functions, rom, boot_failure: None }
    }

    /// Restores the reset state of all registers.
    pub fn reset(&mut self) {
        self.address = 0;
        self.boot_failure = None;
        for (_, function) in &mut self.functions {
            function.reset();
        }
    }

    /// Returns the address register (port 0xCF8).
    #[must_use]
    pub fn address(&self) -> u32 {
        self.address
    }

    /// Writes the address register (port 0xCF8).
    pub fn set_address(&mut self, address: u32) {
        self.address = address & ADDRESS_BITS;
    }

    /// Reads the data register. `offset` is the port less 0xCFC, 0 to 3; `data` has 1, 2 or 4
    /// bytes. Bytes outside the data register, and functions that do not exist, read as all ones.
    pub fn read_data(&self, offset: u8, data: &mut [u8]) {
        data.fill(0xFF);
        let Some((index, register)) = self.target() else { return };
        for (lane, byte) in (offset..4).zip(data) {
            *byte = self.functions[index].1.read(register | lane);
        }
    }

    /// Writes the data register. The arguments are those of [`PciBus::read_data`].
    pub fn write_data(&mut self, offset: u8, data: &[u8]) {
        let Some((index, register)) = self.target() else { return };
        let (devfn, function) = &mut self.functions[index];
        for (lane, byte) in (offset..4).zip(data) {
            match (*devfn, register | lane) {
                (option_rom::DEVFN, boot_status::REGISTER) => {
                    let failure = boot_status::write(function, *byte);
                    self.boot_failure = self.boot_failure.or(failure);
                }
                (_, register) => function.write(register, *byte),
            }
        }
    }

    /// Returns the report of the firmware's driver that there is no system to boot, once.
    pub fn take_boot_failure(&mut self) -> Option<BootFailure> {
        self.boot_failure.take()
    }

    /// Returns the guest physical address at which the option ROM is decoded, or `None` while the
    /// guest has disabled it.
    #[must_use]
    pub fn rom_address(&self) -> Option<u64> {
        let function = self.functions.iter().find(|(devfn, _)| *devfn == option_rom::DEVFN);
        function.and_then(|(_, function)| option_rom::decoded_at(function))
    }

    /// Returns the option ROM.
    #[must_use]
    pub fn rom(&self) -> Option<&OptionRom> {
        self.rom.as_ref()
    }

    /// Reads guest physical memory at `address`: the option ROM where it is decoded, all ones
    /// elsewhere.
    pub fn read_memory(&self, address: u64, data: &mut [u8]) {
        data.fill(0xFF);
        let Some((rom, base)) = self.rom.as_ref().zip(self.rom_address()) else { return };
        let Some(offset) = address.checked_sub(base) else { return };
        rom.read(offset, data);
    }

    /// Returns the index of the addressed function, and its addressed dword.
    fn target(&self) -> Option<(usize, u8)> {
        let [register, devfn, bus, _] = self.address.to_le_bytes();
        if self.address & ENABLE == 0 || bus != 0 {
            return None;
        }
        let index = self.functions.iter().position(|(number, _)| *number == devfn)?;
        Some((index, register))
    }
}

impl fmt::Debug for PciBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciBus").field("address", &self.address).finish_non_exhaustive()
    }
}
