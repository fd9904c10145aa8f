//! The machines: the same guest with a screen, in SynthVM and in QEMU.

use std::path::PathBuf;

use guest_images::GuestImage;
use guest_report::agent::Action;
use integration_tests::image::WorkDir;

use super::super::machine::{Machine, Size};

/// Guest RAM of both machines in MiB.
const MEMORY_MIB: u32 = 512;

/// The name that Linux gives the keyboards of both machines.
const KEYBOARD: &str = "AT Translated Set 2 keyboard";

/// A machine with a screen.
#[derive(Debug)]
pub(super) struct Side {
    // Before the folder of its socket.
    pub(super) machine: Machine,
    /// The socket for viewers.
    pub(super) socket: PathBuf,
    _dir: WorkDir,
}

impl Side {
    /// Boots both machines.
    pub(super) fn both(guest: &GuestImage, cpus: u32) -> Result<[Side; 2], String> {
        let size = Size { cpus, memory_mib: MEMORY_MIB };
        Ok([
            Side::new(|socket| {
                let display = format!("vnc=unix:{socket}");
                Machine::synthvm(guest, size, |options| options.argument("--display", &display))
            })?,
            Side::new(|socket| {
                let socket = format!("unix:{}", socket.replace(',', ",,"));
                let device = ["-device", "VGA", "-vnc", &socket].map(str::to_owned);
                Machine::qemu("QEMU", guest, size, &device)
            })?,
        ])
    }

    fn new(start: impl FnOnce(&str) -> Result<Machine, String>) -> Result<Side, String> {
        let dir = WorkDir::new().map_err(|error| error.to_string())?;
        let socket = dir.path().join("vnc.sock");
        let mut machine = start(&socket.display().to_string())?;
        let names = vec![KEYBOARD.to_owned()];
        machine.ask::<serde_json::Value>(Action::OpenInput { names, timeout_s: 60 })?;
        Ok(Side { machine, socket, _dir: dir })
    }
}
