//! The firmware's devices at their ports and addresses. An access runs on the vCPU's thread that
//! made it, under the lock of its device.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_ioctls::VmFd;
use synthvm_firmware::{BootFailure, Flash, FwCfg, OptionRom, PciBus, Variables};
use tracing::warn;
use vm_device::bus::{Error as BusError, MmioAddress, MmioAddressOffset, PioAddress};
use vm_device::{DeviceMmio, DevicePio};
use vmbus_log::LogRateLimiter;

use super::slot::{self, RomSlot, number};
use super::source::FirmwareSource;
use super::syncer::Syncer;
use super::{FirmwareError, tables};
use crate::acpi;
use crate::devices::{Buses, pm};
use crate::memory::{AddressRange, GuestMemory, HIGH_RAM_BASE, MemoryLayout};
use crate::options::FirmwareConfig;
use crate::smbios::MachineIdentity;

/// The devices, and the mapping of the code.
pub(crate) struct FirmwareDevices {
    /// Absent with `CLOUDHV.fd`, which is in RAM.
    flash: Option<FlashDevices>,
    pci: Arc<Pci>,
}

/// The devices of an image in flash.
struct FlashDevices {
    fw_cfg: Arc<FwCfgPorts>,
    variables: Arc<FlashMemory>,
    /// Keeps the code mapped.
    _code: RomSlot,
}

impl FirmwareDevices {
    /// Maps the code and builds the devices. Opens the variables file, which may create it.
    pub(crate) fn new(
        config: &FirmwareConfig,
        source: FirmwareSource,
        vm: &Arc<VmFd>,
        memory: &GuestMemory,
        layout: &MemoryLayout,
        platform: &acpi::Platform,
        identity: &MachineIdentity,
    ) -> Result<FirmwareDevices, FirmwareError> {
        let map = FirmwareError::Map;
        let fw_cfg = tables::build(&source, layout, platform, identity)?;
        let (code, template) = (&source.image.code, &source.image.variables);
        let variables = match &config.variables {
            Some(path) => Variables::open(path, template)?,
            None => Variables::volatile(template)?,
        };
        let code_base = HIGH_RAM_BASE - code.len() as u64;
        let bytes = slot::memory(code, 0).map_err(map)?;
        let mut code = RomSlot::new(vm, number::CODE, bytes);
        code.map(Some(code_base)).map_err(map)?;
        let flash = FlashDevices {
            fw_cfg: Arc::new(FwCfgPorts { device: Mutex::new(fw_cfg), memory: memory.clone() }),
            variables: Arc::new(FlashMemory::new(variables, vm, code_base).map_err(map)?),
            _code: code,
        };
        let bus = |rom| PciBus::i440fx(pm::BASE, rom);
        let pci = Pci::new(source.option_rom, bus, vm, layout.pci_window()).map_err(map)?;
        Ok(FirmwareDevices { flash: Some(flash), pci: Arc::new(pci) })
    }

    /// Builds the devices of `CLOUDHV.fd`.
    pub(crate) fn cloudhv(
        option_rom: Option<OptionRom>,
        vm: &Arc<VmFd>,
        layout: &MemoryLayout,
    ) -> Result<FirmwareDevices, FirmwareError> {
        let pci = Pci::new(option_rom, PciBus::cloudhv, vm, layout.pci_window());
        let pci = Arc::new(pci.map_err(FirmwareError::Map)?);
        Ok(FirmwareDevices { flash: None, pci })
    }

    /// Returns whether the firmware is `CLOUDHV.fd`, which has ports of its own.
    pub(crate) fn is_cloudhv(&self) -> bool {
        self.flash.is_none()
    }

    /// Returns the PCI bus.
    pub(crate) fn pci(&self) -> &Arc<Pci> {
        &self.pci
    }

    /// Adds the devices to the buses, except for the ports of the PCI bus, which it shares with
    /// the reset control register.
    pub(crate) fn add_to(&self, buses: &mut Buses) -> Result<(), BusError> {
        if let Some(flash) = &self.flash {
            buses.add_wide_ports(FwCfg::PORT, FwCfg::PORTS, Arc::clone(&flash.fw_cfg) as _)?;
            let variables = Arc::clone(&flash.variables);
            buses.add_mmio(variables.base, variables.len, variables)?;
        }
        let window = self.pci.window;
        buses.add_mmio(window.start, window.len(), Arc::clone(&self.pci) as _)
    }

    /// Returns whether the firmware takes its tables from files; otherwise they are in RAM.
    pub(crate) fn has_files(&self) -> bool {
        self.flash.is_some()
    }

    /// Tells firmware that has files of a TPM: `platform` describes the machine with it, and
    /// `config` is the content of `etc/tpm/config`.
    pub(crate) fn set_tpm(
        &self,
        platform: &acpi::Platform,
        config: &[u8],
    ) -> Result<(), FirmwareError> {
        let Some(flash) = &self.flash else { return Ok(()) };
        let mut fw_cfg = lock(&flash.fw_cfg.device);
        tables::set_acpi(&mut fw_cfg, platform)?;
        fw_cfg.set_file("etc/tpm/config", config.to_vec())?;
        Ok(())
    }

    /// Restores the reset state of all devices. The variables keep their content.
    pub(crate) fn reset(&self) {
        if let Some(flash) = &self.flash {
            lock(&flash.fw_cfg.device).reset();
            flash.variables.update(Flash::reset);
        }
        self.pci.update(PciBus::reset);
    }
}

struct FwCfgPorts {
    device: Mutex<FwCfg>,
    memory: GuestMemory,
}

impl DevicePio for FwCfgPorts {
    fn pio_read(&self, _base: PioAddress, offset: u16, data: &mut [u8]) {
        lock(&self.device).read_port(offset, data);
    }

    fn pio_write(&self, _base: PioAddress, offset: u16, data: &[u8]) {
        lock(&self.device).write_port(offset, data, &self.memory);
    }
}

/// The flash. While it is in array mode its bytes are mapped, so that only writes exit.
struct FlashMemory {
    base: u64,
    len: u64,
    state: Mutex<(Flash, RomSlot)>,
    /// Absent where the variables have no file.
    syncer: Option<Syncer>,
    log: LogRateLimiter,
}

impl FlashMemory {
    /// Returns the flash, mapped below `end`.
    fn new(variables: Variables, vm: &Arc<VmFd>, end: u64) -> io::Result<FlashMemory> {
        let len = variables.len() as u64;
        let base = end - len;
        let mut slot = RomSlot::new(vm, number::VARIABLES, Arc::clone(variables.mapping()));
        slot.map(Some(base))?;
        let syncer = match variables.file() {
            Some((file, path)) => {
                let (file, name) = (file.try_clone()?, path.display().to_string());
                Some(Syncer::start(name, Box::new(move || file.sync_data()))?)
            }
            None => None,
        };
        let state = Mutex::new((Flash::new(variables), slot));
        Ok(FlashMemory { base, len, state, syncer, log: LogRateLimiter::default() })
    }

    /// Changes the flash, then maps it if its mode allows.
    fn update(&self, change: impl FnOnce(&mut Flash)) {
        let mut state = lock(&self.state);
        let (flash, slot) = &mut *state;
        change(flash);
        if flash.take_written()
            && let Some(syncer) = &self.syncer
        {
            syncer.request();
        }
        let address = flash.is_array().then_some(self.base);
        if let Err(error) = slot.map(address) {
            self.log.log(|suppressed| warn!(suppressed, "mapping the flash: {error}"));
        }
    }
}

impl DeviceMmio for FlashMemory {
    fn mmio_read(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        lock(&self.state).0.read(offset, data);
    }

    fn mmio_write(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        self.update(|flash| flash.write(offset, data));
    }
}

/// The PCI bus. Its option ROM is mapped where the guest placed it, if that is in the PCI window.
pub(crate) struct Pci {
    window: AddressRange,
    state: Mutex<(PciBus, Option<RomSlot>)>,
    log: LogRateLimiter,
}

impl Pci {
    fn new(
        rom: Option<OptionRom>,
        bus: impl FnOnce(Option<OptionRom>) -> PciBus,
        vm: &Arc<VmFd>,
        window: AddressRange,
    ) -> io::Result<Pci> {
        let slot = match &rom {
            Some(rom) => {
                let memory = slot::memory(rom.bytes(), rom.window() as usize)?;
                Some(RomSlot::new(vm, number::OPTION_ROM, memory))
            }
            None => None,
        };
        let state = Mutex::new((bus(rom), slot));
        Ok(Pci { window, state, log: LogRateLimiter::default() })
    }

    /// Reads the configuration registers. `offset` is the port less 0xCF8.
    pub(crate) fn read(&self, offset: u16, data: &mut [u8]) {
        let state = lock(&self.state);
        match (offset, data) {
            (0, data) if data.len() == 4 => data.copy_from_slice(&state.0.address().to_le_bytes()),
            (4.., data) => state.0.read_data((offset - 4) as u8, data),
            (_, data) => data.fill(0xFF),
        }
    }

    /// Writes the configuration registers. `offset` is the port less 0xCF8. Returns the report of
    /// the firmware's driver, if the access makes one.
    pub(crate) fn write(&self, offset: u16, data: &[u8]) -> Option<BootFailure> {
        match (offset, data) {
            (0, &[a, b, c, d]) => lock(&self.state).0.set_address(u32::from_le_bytes([a, b, c, d])),
            (4.., data) => self.update(|bus| bus.write_data((offset - 4) as u8, data)),
            _ => return None,
        }
        lock(&self.state).0.take_boot_failure()
    }

    /// Changes the bus, then maps the option ROM where it is decoded. Outside the window it stays
    /// unmapped: there the guest would see RAM or another device.
    fn update(&self, change: impl FnOnce(&mut PciBus)) {
        let mut state = lock(&self.state);
        let (bus, slot) = &mut *state;
        change(bus);
        let (Some(slot), Some(rom)) = (slot, bus.rom()) else { return };
        let is_inside = |address: &u64| {
            *address >= self.window.start
                && address.checked_add(rom.window()).is_some_and(|end| end <= self.window.end)
        };
        if let Err(error) = slot.map(bus.rom_address().filter(is_inside)) {
            self.log.log(|suppressed| warn!(suppressed, "mapping the option ROM: {error}"));
        }
    }
}

impl DeviceMmio for Pci {
    fn mmio_read(&self, base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        lock(&self.state).0.read_memory(base.0 + offset, data);
    }

    fn mmio_write(&self, _base: MmioAddress, _offset: MmioAddressOffset, _data: &[u8]) {}
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
