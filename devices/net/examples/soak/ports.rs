//! The two ports of a soak.

use std::process::Command;
use std::sync::Arc;

use synthvm_net::software::SoftwareOffload;
use synthvm_net::tap::Tap;
use synthvm_net::{Backend, Queue, Switch, UnixLink};

/// The queues of two ports that are connected.
pub(crate) struct Ports {
    pub(crate) from: Box<dyn Queue>,
    pub(crate) to: Box<dyn Queue>,
}

impl Ports {
    /// Opens ports of `kind`.
    pub(crate) fn open(kind: &str) -> Result<Self, String> {
        let system = |error: std::io::Error| format!("{kind}: {error}");
        let [from, to]: [Arc<dyn Backend>; 2] = match kind {
            "switch" => {
                let switch = Switch::new(2).map_err(system)?;
                let port = |index| switch.port(index).ok_or_else(|| "no port".to_owned());
                [Arc::new(port(0)?), Arc::new(port(1)?)]
            }
            "link" => {
                let (near, far) = UnixLink::pair().map_err(system)?;
                [Arc::new(near), Arc::new(far)]
            }
            "tap" => {
                bridge()?;
                let tap = |name| Tap::open(name, 1).map_err(|error| error.to_string());
                [Arc::new(tap("soak0")?), Arc::new(tap("soak1")?)]
            }
            _ => return Err(format!("`{kind}` is none of switch, link, tap")),
        };
        let from = SoftwareOffload::new(from);
        Ok(Self { from: from.queue(0).map_err(system)?, to: to.queue(0).map_err(system)? })
    }
}

/// Makes two TAP interfaces on a bridge in this network namespace.
fn bridge() -> Result<(), String> {
    for arguments in [
        "link add soakbr type bridge",
        "link set soakbr up",
        "tuntap add dev soak0 mode tap vnet_hdr",
        "tuntap add dev soak1 mode tap vnet_hdr",
        "link set soak0 up master soakbr",
        "link set soak1 up master soakbr",
    ] {
        let status = Command::new("ip").args(arguments.split(' ')).status();
        if !status.is_ok_and(|status| status.success()) {
            return Err(format!("`ip {arguments}` failed (run it in `unshare -Urn`)"));
        }
    }
    Ok(())
}
