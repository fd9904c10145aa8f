//! The child process.

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::socket;

/// How passt is started.
#[derive(Clone, Debug)]
pub struct PasstOptions {
    /// The program; a name is searched for in `PATH`.
    pub program: PathBuf,
    /// Ports of the host that lead to the guest.
    pub forwards: Vec<Forward>,
    /// Further arguments, as they are.
    pub arguments: Vec<OsString>,
}

/// A port of the host that leads to a port of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The transport.
    pub protocol: Protocol,
    /// The address to listen on; `None`: all of the host's.
    pub address: Option<IpAddr>,
    /// The host's port.
    pub host: u16,
    /// The guest's port.
    pub guest: u16,
}

/// The transport of a [`Forward`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Default for PasstOptions {
    /// Returns the program `passt` without forwards.
    fn default() -> Self {
        Self { program: "passt".into(), forwards: Vec::new(), arguments: Vec::new() }
    }
}

impl PasstOptions {
    /// Returns the arguments for a connection through descriptor `fd`.
    pub(super) fn arguments(&self, fd: i32) -> Vec<OsString> {
        let mut arguments: Vec<OsString> =
            vec!["--foreground".into(), "--quiet".into(), "--fd".into(), fd.to_string().into()];
        for forward in &self.forwards {
            let option = match forward.protocol {
                Protocol::Tcp => "--tcp-ports",
                Protocol::Udp => "--udp-ports",
            };
            let address = forward.address.map(|address| format!("{address}/")).unwrap_or_default();
            let ports = format!("{address}{}:{}", forward.host, forward.guest);
            arguments.extend([option.into(), ports.into()]);
        }
        arguments.extend(self.arguments.iter().cloned());
        arguments
    }
}

/// A child that runs. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It fails when the child has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts passt. Returns the socket to it.
pub(super) fn start(options: &PasstOptions) -> io::Result<(Running, OwnedFd)> {
    let (near, far) = socket::pair(libc::SOCK_STREAM)?;
    let fd = far.as_raw_fd();
    let mut command = Command::new(&options.program);
    command.args(options.arguments(fd)).stdin(Stdio::null());
    // A terminal's Ctrl-C asks the guest to power down, which may need its network until then.
    command.process_group(0);
    // SAFETY: fcntl is safe between fork and exec, and the closure uses nothing else. The
    // descriptor is open until the child has started.
    unsafe {
        command.pre_exec(move || {
            if libc::fcntl(fd, libc::F_SETFD, 0) < 0 || libc::fcntl(fd, libc::F_SETFL, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let child = command.spawn().map_err(|error| {
        let program = options.program.display();
        let text = format!("cannot start `{program}`: {error} (install passt, or give its path)");
        io::Error::new(error.kind(), text)
    })?;
    Ok((Running(child), near))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn test_child_does_not_get_the_signals_of_a_terminal() {
        let program = std::env::temp_dir().join(format!("synthvm-child-{}", std::process::id()));
        std::fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let options = PasstOptions { program: program.clone(), ..PasstOptions::default() };
        let (running, _socket) = start(&options).unwrap();
        let id = running.0.id() as i32;
        // SAFETY: the call takes a number and accesses no memory.
        assert_eq!(unsafe { libc::getpgid(id) }, id);
        std::fs::remove_file(&program).unwrap();
    }
}
