//! The guest driver's view of the bus.

use std::fs;
use std::path::Path;

use guest_report::agent::{Vmbus, VmbusDevice};

use crate::{Outcome, context, sys};

const DEVICES: &str = "/sys/bus/vmbus/devices";

/// Returns the negotiated version and the devices.
pub fn state() -> Outcome<Vmbus> {
    let log = sys::kernel_log().map_err(context("reading the kernel's log"))?;
    let mut devices = Vec::new();
    if let Ok(entries) = fs::read_dir(DEVICES) {
        for entry in entries.flatten() {
            devices.push(device(&entry.path())?);
        }
    }
    devices.sort_by_key(|device| device.id);
    Ok(Vmbus { version: version(&log), devices })
}

/// Returns the last version that the driver reported: `hv_vmbus: Vmbus version:5.3`.
fn version(log: &str) -> Option<String> {
    let line = log.lines().rev().find(|line| line.contains("Vmbus version:"))?;
    let (_, rest) = line.split_once("Vmbus version:")?;
    Some(rest.trim().to_owned())
}

fn device(dir: &Path) -> Outcome<VmbusDevice> {
    let read = |name: &str| {
        let path = dir.join(name);
        fs::read_to_string(&path)
            .map(|text| text.trim().to_owned())
            .map_err(context(path.display()))
    };
    let number = |name: &str| read(name)?.parse::<u32>().map_err(context(name));
    let guid = |text: String| text.trim_matches(['{', '}']).to_owned();
    let mut channels: Vec<u32> = fs::read_dir(dir.join("channels"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    channels.sort_unstable();
    Ok(VmbusDevice {
        name: dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        id: number("id")?,
        class_id: guid(read("class_id")?),
        device_id: guid(read("device_id")?),
        state: number("state")?,
        driver: fs::read_link(dir.join("driver"))
            .ok()
            .and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned())),
        channels,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_version_is_the_last_one_reported() {
        let log =
            "[1] hv_vmbus: Vmbus version:4.0\n[2] x\n[3] hv_vmbus: Vmbus version:5.3\n[4] y\n";
        assert_eq!(version(log), Some("5.3".to_owned()));
        assert_eq!(version("nothing"), None);
    }
}
