//! Host sockets: AF_VSOCK of the guest.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vmbus_protocol::Guid;

use super::de;
use super::node::Bare;

/// The key of a bare value: `--vsock vm.sock` is `--vsock socket=vm.sock`.
pub(super) const BARE: Bare = Bare { lists: &["service"], ..Bare::key("socket") };

/// The sockets of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VsockConfig {
    /// The socket at which host programs connect to the guest. Its name, `_` and a port are the
    /// socket of the host program that the guest reaches at that port.
    #[serde(deserialize_with = "de::host_path")]
    pub socket: PathBuf,
    /// Services of the host with sockets of their own.
    #[serde(
        default,
        rename = "service",
        deserialize_with = "services",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub services: Vec<VsockService>,
}

/// A service of the host that the guest knows by a GUID: `GUID:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsockService {
    /// The service.
    pub service: Guid,
    /// The socket of the program, absolute.
    pub path: PathBuf,
}

impl FromStr for VsockService {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (guid, path) = text.split_once(':').ok_or_else(|| {
            format!("`{text}` is no service; write GUID:PATH, with the path of a socket")
        })?;
        let service = guid.parse().map_err(|error| format!("`{guid}` is {error}"))?;
        if !Path::new(path).is_absolute() {
            return Err(format!("the path of service {service} must be absolute, not `{path}`"));
        }
        Ok(Self { service, path: path.into() })
    }
}

impl fmt::Display for VsockService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.path.display())
    }
}

impl Serialize for VsockService {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads the services, and refuses one that is there twice.
fn services<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<VsockService>, D::Error> {
    let services: Vec<VsockService> =
        de::one_or_more(deserializer, "a service such as \"GUID:PATH\", or a list of them")?;
    for (index, one) in services.iter().enumerate() {
        if services[..index].iter().any(|other| other.service == one.service) {
            let message = format!("service {} is given twice", one.service);
            return Err(serde::de::Error::custom(message));
        }
    }
    Ok(services)
}
