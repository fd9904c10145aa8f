//! Configuration of firmware and its variables.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use synthvm_machine as machine;

use super::node::Bare;
use super::{VmConfig, de, installed};

/// `--firmware a.fd` is `--firmware path=a.fd`; `--firmware ovmf` is `--firmware ovmf=on`;
/// `--firmware msvm:a.fd` is `--firmware msvm=a.fd`.
pub(super) const BARE: Bare = Bare { words: &["ovmf"], prefixes: &["msvm"], ..Bare::key("path") };

/// `--firmware-vars a.fd` is `--firmware-vars path=a.fd`.
pub(super) const VARS_BARE: Bare = Bare::key("path");

/// UEFI firmware.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct FirmwareConfig {
    /// Image of OVMF. Absent with `ovmf` and `msvm`.
    #[serde(deserialize_with = "de::optional_host_path", skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The OVMF that is installed on this system, or else the one in the project's cache.
    pub ovmf: bool,
    /// Image of Hyper-V's generation 2 firmware, `MSVM.fd`.
    #[serde(deserialize_with = "de::optional_host_path", skip_serializing_if = "Option::is_none")]
    pub msvm: Option<PathBuf>,
    /// Option ROM with a driver that the firmware loads. Default with `ovmf`: the driver for
    /// VMBus, if it is installed or in the project's cache.
    #[serde(deserialize_with = "de::optional_host_path", skip_serializing_if = "Option::is_none")]
    pub option_rom: Option<PathBuf>,
}

/// The file of the firmware's variables.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct FirmwareVarsConfig {
    /// The file. It is created from the template if it does not exist.
    #[serde(deserialize_with = "de::optional_host_path", skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The content of a new file. Default: the firmware's own template.
    #[serde(deserialize_with = "de::optional_host_path", skip_serializing_if = "Option::is_none")]
    pub template: Option<PathBuf>,
}

impl FirmwareConfig {
    /// Returns the image: the path, or an OVMF that is installed.
    #[must_use]
    pub fn image(&self) -> Option<PathBuf> {
        if self.ovmf { installed::ovmf() } else { self.path.clone() }
    }

    /// Returns the option ROM: the path, or with `ovmf` the installed driver for VMBus.
    #[must_use]
    pub fn option_rom(&self) -> Option<PathBuf> {
        let found = || self.ovmf.then(installed::option_rom).flatten();
        self.option_rom.clone().or_else(found)
    }
}

impl VmConfig {
    /// Returns the firmware as the machine's option.
    pub(super) fn machine_firmware(&self) -> Option<machine::FirmwareConfig> {
        let firmware = self.firmware.as_ref().filter(|firmware| firmware.msvm.is_none())?;
        let vars = self.firmware_vars.clone().unwrap_or_default();
        Some(machine::FirmwareConfig {
            // `check_inputs` reports an OVMF that is not installed.
            image: firmware.image().unwrap_or_else(|| "ovmf".into()),
            variables: vars.path,
            template: vars.template,
            option_rom: firmware.option_rom(),
        })
    }

    /// Returns Hyper-V's generation 2 firmware as the machine's option.
    pub(super) fn machine_msvm(&self) -> Option<machine::MsvmConfig> {
        let image = self.firmware.as_ref()?.msvm.clone()?;
        let variables = self.firmware_vars.as_ref().and_then(|vars| vars.path.clone());
        Some(machine::MsvmConfig { image, variables })
    }

    /// Returns whether Hyper-V's generation 2 firmware starts the machine.
    pub(super) fn has_msvm(&self) -> bool {
        self.firmware.as_ref().is_some_and(|firmware| firmware.msvm.is_some())
    }
}

/// Checks that the firmware is named in one way, and that nothing needs firmware that is not there.
pub(super) fn check(config: &VmConfig) -> Result<(), (&'static str, String)> {
    check_report(config)?;
    let Some(firmware) = &config.firmware else {
        return match config.firmware_vars {
            Some(_) => Err(("firmware-vars", "there is no firmware; add --firmware ovmf".into())),
            None => Ok(()),
        };
    };
    if firmware.msvm.is_some() {
        return check_msvm(config, firmware);
    }
    match (firmware.ovmf, &firmware.path) {
        (true, None) | (false, Some(_)) => Ok(()),
        (true, Some(_)) => {
            Err(("firmware", "has both `ovmf` and `path`; leave one of them out".into()))
        }
        (false, None) => Err(("firmware", "needs `ovmf`, path=FILE or msvm:FILE".into())),
    }
}

/// Checks that firmware can report that it finds no system. MSVM does so by itself.
fn check_report(config: &VmConfig) -> Result<(), (&'static str, String)> {
    if config.on_no_boot_device == machine::OnNoBootDevice::Wait {
        return Ok(());
    }
    let message = match &config.firmware {
        None => "`exit` is for firmware; add --firmware ovmf",
        Some(firmware) if firmware.path.is_some() && firmware.option_rom.is_none() => {
            "this firmware reports it by the driver for VMBus; add option-rom=FILE to --firmware"
        }
        Some(_) => return Ok(()),
    };
    Err(("on-no-boot-device", message.into()))
}

/// Hyper-V's firmware boots from VMBus disks alone, and has its own form of variables.
fn check_msvm(config: &VmConfig, firmware: &FirmwareConfig) -> Result<(), (&'static str, String)> {
    if firmware.ovmf || firmware.path.is_some() {
        return Err(("firmware", "has both `msvm` and OVMF; leave one of them out".into()));
    }
    if firmware.option_rom.is_some() {
        let message = "`msvm` has no PCI for an option ROM; leave `option-rom` out";
        return Err(("firmware", message.into()));
    }
    if config.kernel.is_some() {
        let message = "the firmware `msvm` boots from disks; leave --kernel out";
        return Err(("kernel", message.into()));
    }
    if config.tpm.is_some() {
        let message = "the firmware `msvm` knows no TPM of this kind; leave --tpm out";
        return Err(("tpm", message.into()));
    }
    match config.firmware_vars.as_ref().and_then(|vars| vars.template.as_ref()) {
        Some(_) => {
            let message = "variables of `msvm` have no template; leave `template` out";
            Err(("firmware-vars", message.into()))
        }
        None => Ok(()),
    }
}
