//! A guest in the plain emulator, without SynthVM: proves that the guest itself boots and answers.

use std::io;
use std::os::unix::net::UnixListener;
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
            .stdin(Stdio::null())
            .spawn()
            .map_err(prepare)?;
        let mut guard = ChildGuard::new(child);
        let ready = poll(&listener, CONNECT_LIMIT).map_err(prepare)?;
        if !ready {
            return Err(HostError::Prepare("the emulator did not connect to its report port".to_owned()));
        }
        let (stream, _) = listener.accept().map_err(prepare)?;
        let agent = Agent::new(stream).map_err(prepare)?;
        match guard.take() {
            Some(child) => Ok(EmulatedGuest { agent, child, _dir: dir }),
            None => Err(HostError::Prepare("the emulator is gone".to_owned())),
        }
    }

    /// Waits for the emulator's end; true when it ended well.
    pub fn wait(mut self) -> io::Result<bool> {
        Ok(self.child.wait()?.success())
    }
}

impl Drop for EmulatedGuest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
