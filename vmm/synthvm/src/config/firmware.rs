//! Configuration of firmware and its variables.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use synthvm_machine as machine;

use super::node::Bare;
use super::{VmConfig, de};

/// `--firmware a.fd` is `--firmware path=a.fd`; `--firmware ovmf` is `--firmware ovmf=on`.
pub(super) const BARE: Bare = Bare { words: &["ovmf"], ..Bare::key("path") };

/// `--firmware-vars a.fd` is `--firmware-vars path=a.fd`.
pub(super) const VARS_BARE: Bare = Bare::key("path");

/// The places of OVMF's code in distributions: Debian and Ubuntu, Fedora, Arch, openSUSE. The
/// template of the variables is beside it.
const INSTALLED: [&str; 6] = [
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
    "/usr/share/OVMF/OVMF_CODE.fd",
    "/usr/share/edk2/ovmf/OVMF_CODE.fd",
    "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
    "/usr/share/edk2-ovmf/x64/OVMF_CODE.fd",
    "/usr/share/qemu/ovmf-x86_64-code.bin",
];

/// UEFI firmware.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct FirmwareConfig {
    /// Image of the firmware. Absent with `ovmf`.
    #[serde(deserialize_with = "de::optional_host_path", skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The OVMF that is installed on this system.
    pub ovmf: bool,
    /// Option ROM with a driver that the firmware loads.
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
    /// Returns the image: the path, or the first place of an installed OVMF.
    #[must_use]
    pub fn image(&self) -> Option<PathBuf> {
        if self.ovmf {
            return INSTALLED.iter().map(PathBuf::from).find(|path| path.exists());
        }
        self.path.clone()
    }
}

impl VmConfig {
    /// Returns the firmware as the machine's option.
    pub(super) fn machine_firmware(&self) -> Option<machine::FirmwareConfig> {
        let firmware = self.firmware.as_ref()?;
        let vars = self.firmware_vars.clone().unwrap_or_default();
        Some(machine::FirmwareConfig {
            // `check_inputs` reports an OVMF that is not installed.
            image: firmware.image().unwrap_or_else(|| INSTALLED[0].into()),
            variables: vars.path,
            template: vars.template,
            option_rom: firmware.option_rom.clone(),
        })
    }
}

/// Checks that the firmware is named in one way, and that nothing needs firmware that is not there.
pub(super) fn check(config: &VmConfig) -> Result<(), (&'static str, String)> {
    let Some(firmware) = &config.firmware else {
        return match config.firmware_vars {
            Some(_) => Err(("firmware-vars", "there is no firmware; add --firmware ovmf".into())),
            None => Ok(()),
        };
    };
    match (firmware.ovmf, &firmware.path) {
        (true, None) | (false, Some(_)) => Ok(()),
        (true, Some(_)) => {
            Err(("firmware", "has both `ovmf` and `path`; leave one of them out".into()))
        }
        (false, None) => Err(("firmware", "needs `ovmf` or path=FILE".into())),
    }
}
