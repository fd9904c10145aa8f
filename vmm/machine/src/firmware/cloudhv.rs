//! `CLOUDHV.fd`: a build of OVMF that is started through its PVH entry and has neither flash nor
//! fw_cfg (spec firmware-windows section B7). It takes memory map and ACPI tables from the PVH
//! structure, SMBIOS tables from their legacy place, and drivers from option ROMs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};

use super::FirmwareError;
use super::source::open_option_rom;
use crate::boot::BootSource;
use crate::devices::pm::PmRegisters;
use crate::devices::{Power, PowerRequest};
use crate::options::FirmwareConfig;

/// The files of a machine that `CLOUDHV.fd` starts.
#[derive(Debug)]
pub struct CloudHvSource {
    pub(crate) path: PathBuf,
    pub(crate) image: BootSource,
    pub(crate) option_rom: Option<synthvm_firmware::OptionRom>,
}

impl CloudHvSource {
    /// Opens the files and checks them, if `config` names an ELF file.
    ///
    /// # Errors
    /// [`FirmwareError`]: the file at fault, and the cause.
    pub fn open(
        config: &FirmwareConfig,
        kernel: Option<&Path>,
    ) -> Result<Option<CloudHvSource>, FirmwareError> {
        if !BootSource::is_elf(&config.image) {
            return Ok(None);
        }
        if kernel.is_some() {
            return Err(FirmwareError::NoKernel { path: config.image.clone() });
        }
        if config.variables.is_some() || config.template.is_some() {
            return Err(FirmwareError::NoVariables { path: config.image.clone() });
        }
        let image = BootSource::open(&config.image, None, "").map_err(FirmwareError::Elf)?;
        let option_rom = config.option_rom.as_deref().map(open_option_rom).transpose()?;
        Ok(Some(CloudHvSource { path: config.image.clone(), image, option_rom }))
    }
}

/// The ports that the image has built in: power-off and the PM timer.
pub(crate) struct CloudHvPorts {
    pub(crate) pm: Arc<PmRegisters>,
    pub(crate) power: Arc<dyn Power>,
}

impl CloudHvPorts {
    /// First port: a write of [`CloudHvPorts::OFF`] switches the machine off.
    pub(crate) const PORT: u16 = 0x600;
    /// Number of ports.
    pub(crate) const PORTS: u16 = 12;
    /// SLEEP_EN and SLP_TYP 5 of ACPI's sleep control register.
    const OFF: u8 = 0x34;
    /// Offset of the PM timer.
    const TIMER: u16 = 8;
}

impl DevicePio for CloudHvPorts {
    fn pio_read(&self, _base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        match (offset, data.len()) {
            (Self::TIMER, 4) => data.copy_from_slice(&self.pm.timer().to_le_bytes()),
            _ => data.fill(0xFF),
        }
    }

    fn pio_write(&self, _base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        if (offset, data) == (0, &[Self::OFF]) {
            self.power.request(PowerRequest::PowerOff);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::devices::InterruptLine;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<PowerRequest>>);

    impl Power for Recorder {
        fn request(&self, request: PowerRequest) {
            self.0.lock().unwrap().push(request);
        }
    }

    impl InterruptLine for Recorder {
        fn pulse(&self) -> std::io::Result<()> {
            Ok(())
        }

        fn set_level(&self, _high: bool) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn test_ports_have_the_timer_and_switch_off_by_their_value_only() {
        let recorder = Arc::new(Recorder::default());
        let pm = Arc::new(PmRegisters::new(recorder.clone(), recorder.clone()));
        let ports = CloudHvPorts { pm, power: recorder.clone() };
        let read = || {
            let mut data = [0; 4];
            ports.pio_read(PioAddress(0x600), 8, &mut data);
            u32::from_le_bytes(data)
        };
        let first = read();
        while read() == first {}
        for (offset, data) in [(0, &[0x33][..]), (1, &[0x34]), (0, &[0x34, 0])] {
            ports.pio_write(PioAddress(0x600), offset, data);
        }
        assert!(recorder.0.lock().unwrap().is_empty());
        ports.pio_write(PioAddress(0x600), 0, &[0x34]);
        assert_eq!(*recorder.0.lock().unwrap(), [PowerRequest::PowerOff]);
    }

    #[test]
    fn test_elf_image_with_what_it_cannot_use_is_refused() {
        let path = std::env::temp_dir().join(format!("synthvm-cloudhv-{}", std::process::id()));
        std::fs::write(&path, [&b"\x7FELF\x01"[..], &[0; 60]].concat()).unwrap();
        let config = FirmwareConfig { image: path.clone(), ..FirmwareConfig::default() };
        let error = |config: &FirmwareConfig, kernel| {
            CloudHvSource::open(config, kernel).unwrap_err().to_string()
        };
        assert!(error(&config, Some(Path::new("k"))).contains("leave --kernel out"));
        let kept = FirmwareConfig { variables: Some("v".into()), ..config.clone() };
        assert!(error(&kept, None).contains("leave --firmware-vars out"));
        assert!(error(&config, None).contains("32-bit ELF"));
        std::fs::remove_file(path).unwrap();
    }
}
