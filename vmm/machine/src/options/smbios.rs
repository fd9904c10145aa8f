//! The texts of a machine's SMBIOS tables.

use serde::{Deserialize, Serialize};

/// The texts of a machine's SMBIOS tables, by which its guest and its programs identify it. Each
/// has at most [`SmbiosConfig::MAX_LEN`] printable ASCII characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct SmbiosConfig {
    /// Whether manufacturer, product and version are those of a machine of Hyper-V, for programs
    /// that look at them.
    pub hyperv: bool,
    /// Manufacturer of system, board and chassis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// Product name of system and board.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// Version of system, board and chassis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Serial number of system, board and chassis. Without one they have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Stock number of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// Family of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Asset tag of the chassis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asset_tag: Option<String>,
}

impl SmbiosConfig {
    /// The most characters of a text.
    pub const MAX_LEN: usize = 64;

    /// Returns the manufacturer.
    #[must_use]
    pub fn manufacturer(&self) -> &str {
        let default = if self.hyperv { "Microsoft Corporation" } else { "SynthVM" };
        self.manufacturer.as_deref().unwrap_or(default)
    }

    /// Returns the product name.
    #[must_use]
    pub fn product(&self) -> &str {
        self.product.as_deref().unwrap_or("Virtual Machine")
    }

    /// Returns the version.
    #[must_use]
    pub fn version(&self) -> &str {
        let default = if self.hyperv { "Hyper-V UEFI Release v4.1" } else { VERSION };
        self.version.as_deref().unwrap_or(default)
    }

    /// Returns each text that is given, with its key.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let texts = [
            ("manufacturer", &self.manufacturer),
            ("product", &self.product),
            ("version", &self.version),
            ("serial", &self.serial),
            ("sku", &self.sku),
            ("family", &self.family),
            ("asset-tag", &self.asset_tag),
        ];
        texts.into_iter().filter_map(|(key, text)| Some((key, text.as_deref()?)))
    }
}

/// The version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");
