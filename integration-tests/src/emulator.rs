//! A guest in the plain emulator, without SynthVM: proves that the guest itself boots and answers.

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use guest_images::GuestImage;

use crate::agent::Agent;
use crate::host::{self, HostError};
use crate::image::WorkDir;
use crate::vm::{ChildGuard, poll};

/// How long the emulator may take to open its ports.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// A guest that runs in the emulator. Killed when dropped.
#[derive(Debug)]
pub struct EmulatedGuest {
    /// The connection to its agent.
    pub agent: Agent,
    monitor: UnixStream,
    child: Child,
    _dir: WorkDir,
}

impl EmulatedGuest {
    /// Starts the emulator; the guest is not up yet.
    pub fn start(guest: &GuestImage) -> Result<EmulatedGuest, HostError> {
        host::ensure_emulator()?;
        let prepare = |e: io::Error| HostError::Prepare(e.to_string());
        let dir = WorkDir::new().map_err(prepare)?;
        let socket = dir.path().join("agent.sock");
        // The emulator connects to us, so nothing that the guest says can be lost.
        let listener = UnixListener::bind(&socket).map_err(prepare)?;
        let monitor_socket = dir.path().join("monitor.sock");
        let monitor_listener = UnixListener::bind(&monitor_socket).map_err(prepare)?;
        let child = Command::new(host::EMULATOR)
            .args(["-machine", "q35", "-accel", "tcg", "-cpu", "max,-la57", "-m", "512", "-nodefaults"])
            .args(["-display", "none", "-no-reboot", "-serial", "null"])
            .arg("-kernel")
            .arg(&guest.kernel)
            .arg("-initrd")
            .arg(&guest.initrd)
            .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off synthvm.agent"])
            .arg("-chardev")
            .arg(format!("socket,id=agent,path={}", socket.display()))
            .args(["-serial", "chardev:agent"])
            .arg("-chardev")
            .arg(format!("socket,id=monitor,path={}", monitor_socket.display()))
            .args(["-mon", "chardev=monitor,mode=readline"])
            .stdin(Stdio::null())
            .spawn()
            .map_err(prepare)?;
        let mut guard = ChildGuard::new(child);
        let agent = Agent::new(accept(&listener)?).map_err(prepare)?;
        let monitor = accept(&monitor_listener)?;
        match guard.take() {
            Some(child) => Ok(EmulatedGuest { agent, monitor, child, _dir: dir }),
            None => Err(HostError::Prepare("the emulator is gone".to_owned())),
        }
    }

    /// Presses the machine's power button.
    pub fn press_power_button(&mut self) -> io::Result<()> {
        self.monitor.write_all(b"system_powerdown\n")
    }

    /// Waits for the emulator's end; true when it ended well.
    pub fn wait(mut self) -> io::Result<bool> {
        Ok(self.child.wait()?.success())
    }
}

fn accept(listener: &UnixListener) -> Result<UnixStream, HostError> {
    let prepare = |e: io::Error| HostError::Prepare(e.to_string());
    if !poll(listener, CONNECT_LIMIT).map_err(prepare)? {
        return Err(HostError::Prepare("the emulator did not open its ports".to_owned()));
    }
    listener.accept().map(|(stream, _)| stream).map_err(prepare)
}

impl Drop for EmulatedGuest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
