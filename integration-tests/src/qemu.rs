//! A guest in QEMU, without SynthVM: emulated, to test that the guest itself boots and answers; or
//! on KVM, for comparison.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use guest_images::GuestImage;

use crate::agent::Agent;
use crate::host::{self, HostError};
use crate::image::{self, WorkDir};
use crate::vm::{CMDLINE, ChildGuard, poll};

/// Timeout for QEMU to open its ports.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of the guest's and QEMU's output that an error shows.
const SAID_TAIL: usize = 4 << 10;

/// A guest in QEMU. Killed on drop.
#[derive(Debug)]
pub struct QemuGuest {
    /// The connection to the guest's agent.
    pub agent: Agent,
    monitor: UnixStream,
    child: Child,
    dir: WorkDir,
}

impl QemuGuest {
    /// Starts a guest in an emulated machine. Does not wait until the guest is up.
    pub fn emulated(guest: &GuestImage) -> Result<QemuGuest, HostError> {
        let machine = ["-machine", "q35", "-accel", "tcg", "-cpu", host::PROCESSOR, "-m", "512"];
        QemuGuest::start(guest, &machine.map(str::to_owned), "")
    }

    /// Starts a guest in a machine with the given options of QEMU, and adds `words` to the kernel
    /// command line that every guest gets. Does not wait until the guest is up. The only devices
    /// are the serial ports and those in `machine`.
    pub fn start(
        guest: &GuestImage,
        machine: &[String],
        words: &str,
    ) -> Result<QemuGuest, HostError> {
        let program = host::emulator()?;
        let prepare = |e: io::Error| HostError::Prepare(e.to_string());
        let dir = WorkDir::new().map_err(prepare)?;
        let socket = dir.path().join("agent.sock");
        // The emulator connects to this socket, so no output of the guest is lost.
        let listener = UnixListener::bind(&socket).map_err(prepare)?;
        let monitor_socket = dir.path().join("monitor.sock");
        let monitor_listener = UnixListener::bind(&monitor_socket).map_err(prepare)?;
        let log = std::fs::File::create(dir.path().join("stderr")).map_err(prepare)?;
        let child = Command::new(program)
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(machine)
            .arg("-kernel")
            .arg(&guest.kernel)
            .arg("-initrd")
            .arg(&guest.initrd)
            .args(["-append", format!("{CMDLINE} {words}").trim_end()])
            .arg("-serial")
            .arg(format!("file:{}", dir.path().join("console").display()))
            .arg("-chardev")
            .arg(format!("socket,id=agent,path={}", socket.display()))
            .args(["-serial", "chardev:agent"])
            .arg("-chardev")
            .arg(format!("socket,id=monitor,path={}", monitor_socket.display()))
            .args(["-mon", "chardev=monitor,mode=readline"])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(prepare)?;
        let mut guard = ChildGuard::new(child);
        let connect = || {
            let agent = Agent::new(accept(&listener)?)?;
            Ok((agent, accept(&monitor_listener)?))
        };
        let connected = connect().map_err(|error: io::Error| {
            let said = image::tail(&dir.path().join("stderr"), SAID_TAIL);
            HostError::Prepare(format!("QEMU did not open its ports: {error}\n{said}"))
        });
        let (agent, monitor) = connected?;
        match guard.take() {
            Some(child) => Ok(QemuGuest { agent, monitor, child, dir }),
            None => Err(HostError::Prepare("the emulator is gone".to_owned())),
        }
    }

    /// Returns the id of QEMU's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the end of the output of the guest's console and of QEMU, and QEMU's exit status if
    /// it has ended.
    pub fn said(&mut self) -> String {
        let said = ["console", "stderr"]
            .map(|name| image::tail(&self.dir.path().join(name), SAID_TAIL))
            .concat();
        match self.child.try_wait() {
            Ok(Some(status)) => format!("{said}\nQEMU has ended: {status}"),
            _ => said,
        }
    }

    /// Presses the machine's power button.
    pub fn press_power_button(&mut self) -> io::Result<()> {
        self.monitor.write_all(b"system_powerdown\n")
    }

    /// Sets the size that the guest's balloon leaves to it.
    pub fn set_balloon(&mut self, mib: u32) -> io::Result<()> {
        self.monitor.write_all(format!("balloon {mib}\n").as_bytes())
    }

    /// Returns the guest's size in MiB, as the balloon's driver has last reported it.
    ///
    /// # Errors
    /// The machine has no balloon, or QEMU does not answer.
    pub fn balloon(&mut self) -> io::Result<u32> {
        self.monitor.write_all(b"info balloon\n")?;
        self.monitor.set_read_timeout(Some(CONNECT_LIMIT))?;
        let (mut said, mut bytes) = (String::new(), [0; 256]);
        loop {
            let count = self.monitor.read(&mut bytes)?;
            said.push_str(&String::from_utf8_lossy(&bytes[..count]));
            match balloon_size(&said) {
                Some(mib) => return Ok(mib),
                None if count == 0 || said.contains("No balloon") => {
                    return Err(io::Error::other(format!("QEMU's monitor said {said:?}")));
                }
                None => {}
            }
        }
    }

    /// Waits for the emulator's end. Returns whether it succeeded.
    pub fn wait(mut self) -> io::Result<bool> {
        Ok(self.child.wait()?.success())
    }
}

/// Returns the size in the monitor's answer, once the whole line is there.
fn balloon_size(said: &str) -> Option<u32> {
    let (_, rest) = said.split_once("balloon: actual=")?;
    let (line, _) = rest.split_once('\n')?;
    let digits = line.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
    if !poll(listener, CONNECT_LIMIT)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    listener.accept().map(|(stream, _)| stream)
}

impl Drop for QemuGuest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_balloon_size_is_read_from_a_whole_line_only() {
        let said = "(qemu) info balloon\u{1b}[K\r\nballoon: actual=1024";
        assert_eq!(balloon_size(said), None);
        assert_eq!(balloon_size(&format!("{said}\r\n(qemu) ")), Some(1024));
        assert_eq!(balloon_size(&format!("{said} max_mem=2048\n")), Some(1024));
    }
}
