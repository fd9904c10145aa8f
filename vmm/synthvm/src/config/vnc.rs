//! The VNC server of a display: its address, its passwords and its certificate.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::de;
use super::display::{DisplayConfig, DisplayMode};
use super::node::{Entry, Node, Value};

/// An address on which viewers are accepted: `unix:PATH` or `IP:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VncAddress {
    /// A Unix socket with mode 0600.
    #[serde(deserialize_with = "de::host_path")]
    Unix(PathBuf),
    /// A TCP address.
    #[serde(deserialize_with = "read_address")]
    Tcp(SocketAddr),
}

impl fmt::Display for VncAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl Serialize for VncAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Converts the text of an address to the kind of address and its value, whose path is relative to
/// its file.
pub(super) fn expand_address(root: &mut Node) {
    let Some(node) = root.get_mut("display").and_then(|display| display.get_mut("vnc")) else {
        return;
    };
    let Value::Text(text) = &node.value else { return };
    let (kind, value) = match text.strip_prefix("unix:") {
        Some(path) => ("unix", path.to_owned()),
        None => ("tcp", text.clone()),
    };
    let value = Node { value: Value::Text(value), ..node.clone() };
    node.value = Value::Table(vec![Entry { key: kind.to_owned(), node: value }]);
}

/// Completes and checks the display: a server of the screen brings its devices.
pub(super) fn complete(display: &mut DisplayConfig, root: &Node) -> Result<(), String> {
    let has_mode = root.get("display").is_some_and(|node| node.get("mode").is_some());
    let is_served = display.vnc.is_some() || display.web.is_some();
    match (display.mode, has_mode) {
        (DisplayMode::None, true) if is_served => {
            return Err(
                "a VNC server or a page for browsers shows a screen; leave `none` out".into()
            );
        }
        (DisplayMode::None, false) if is_served => display.mode = DisplayMode::Headless,
        _ => {}
    }
    let Some(address) = &display.vnc else {
        let keys = [
            ("password-file", &display.password_file),
            ("view-password-file", &display.view_password_file),
            ("tls-cert", &display.tls_cert),
            ("tls-key", &display.tls_key),
        ];
        let given = keys.into_iter().find(|(_, path)| path.is_some());
        return given.map_or(Ok(()), |(key, _)| {
            Err(format!("`{key}` is for a VNC server; add vnc=unix:PATH or vnc=127.0.0.1:PORT"))
        });
    };
    if display.tls_cert.is_some() != display.tls_key.is_some() {
        return Err("TLS needs both tls-cert=FILE and tls-key=FILE".into());
    }
    if display.view_password_file.is_some() && display.password_file.is_none() {
        return Err("a password for viewing needs another for full access; add \
                    password-file=FILE"
            .into());
    }
    let VncAddress::Tcp(address) = address else { return Ok(()) };
    if display.password_file.is_none() {
        return Err(format!(
            "every user of this computer could connect to {address}; add password-file=FILE, or \
             use vnc=unix:PATH"
        ));
    }
    if !address.ip().is_loopback() && display.tls_cert.is_none() {
        return Err(format!(
            "{address} is not a loopback address: a password alone does not protect the screen; \
             add tls-cert=FILE and tls-key=FILE, or use vnc=127.0.0.1:PORT with a tunnel (ssh -L)"
        ));
    }
    Ok(())
}

fn read_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    SocketAddr::from_str(&text).map_err(|_| {
        serde::de::Error::custom(format!(
            "`{text}` is no address; give unix:PATH, or an IP address with a port, such as \
             127.0.0.1:5900 or [::1]:5900"
        ))
    })
}
