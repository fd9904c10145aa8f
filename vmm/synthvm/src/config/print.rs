//! Conversion of a configuration to a TOML file that loads as the same configuration.

use std::path::{Path, PathBuf};

use super::{DiskSource, HypervOption, NetworkConfig, SerialConfig, VmConfig, VncAddress};

impl VmConfig {
    /// Returns the whole configuration, including defaults, as a TOML file. Paths are absolute, so
    /// the file's location does not matter.
    ///
    /// # Errors
    /// Returns the cause, if the current directory does not exist and a path is relative.
    pub fn to_toml(&self) -> Result<String, String> {
        let config = self
            .with_absolute_paths()
            .map_err(|error| format!("cannot tell the current directory: {error}"))?;
        let body =
            toml::to_string(&config).map_err(|error| format!("cannot write TOML: {error}"))?;
        Ok(format!("# Start it with: synthvm run FILE\n{body}{}", self.hyperv_comment()))
    }

    fn with_absolute_paths(&self) -> std::io::Result<VmConfig> {
        let mut config = self.clone();
        let optional = |path: &mut Option<PathBuf>| path.as_mut().map_or(Ok(()), make_absolute);
        make_absolute(&mut config.kvm)?;
        optional(&mut config.kernel)?;
        optional(&mut config.initrd)?;
        if let Some(firmware) = &mut config.firmware {
            optional(&mut firmware.path)?;
            optional(&mut firmware.msvm)?;
            optional(&mut firmware.option_rom)?;
        }
        if let Some(vars) = &mut config.firmware_vars {
            optional(&mut vars.path)?;
            optional(&mut vars.template)?;
        }
        optional(&mut config.control)?;
        let display = &mut config.display;
        optional(&mut display.password_file)?;
        optional(&mut display.view_password_file)?;
        optional(&mut display.tls_cert)?;
        optional(&mut display.tls_key)?;
        if let Some(VncAddress::Unix(path)) = &mut display.vnc {
            make_absolute(path)?;
        }
        for disk in &mut config.disks {
            if let DiskSource::Image(_) = disk.source() {
                make_absolute(&mut disk.path)?;
            }
        }
        for dvd in &mut config.dvds {
            optional(&mut dvd.path)?;
        }
        for path in config.networks.iter_mut().flat_map(NetworkConfig::paths_mut) {
            make_absolute(path)?;
        }
        if let Some(tpm) = &mut config.tpm {
            optional(&mut tpm.state)?;
            optional(&mut tpm.program)?;
        }
        if let Some(vsock) = &mut config.vsock {
            make_absolute(&mut vsock.socket)?;
        }
        for port in [&mut config.serial, &mut config.serial2] {
            match port {
                SerialConfig::File(path) | SerialConfig::Socket(path) => make_absolute(path)?,
                SerialConfig::Null | SerialConfig::Stdio => {}
            }
        }
        Ok(config)
    }

    fn hyperv_comment(&self) -> String {
        let names = |on: bool| {
            let options =
                HypervOption::ALL.iter().filter(|option| self.hyperv.offers(**option) == on);
            options.map(|option| option.name()).collect::<Vec<_>>().join(", ")
        };
        format!("\n# Hyper-V options that are on: {}\n# and off: {}\n", names(true), names(false))
    }
}

fn make_absolute(path: &mut PathBuf) -> std::io::Result<()> {
    *path = std::path::absolute(Path::new(path))?;
    Ok(())
}
