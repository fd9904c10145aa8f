//! The process swtpm.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// How swtpm is started.
#[derive(Clone, Debug)]
pub struct SwtpmOptions {
    /// The program; a name is searched for in `PATH`.
    pub program: PathBuf,
    /// The folder of the TPM's state, made if it does not exist. `None`: a temporary folder, whose
    /// state is lost with the machine.
    pub state: Option<PathBuf>,
}

impl Default for SwtpmOptions {
    /// Returns the program `swtpm` with a temporary state.
    fn default() -> Self {
        Self { program: "swtpm".into(), state: None }
    }
}

/// A child that runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    /// Returns how the child ended, if it has.
    pub(crate) fn status(&mut self) -> Option<String> {
        self.0.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// Returns the process id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It fails when the child has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts swtpm with its state in `folder`. Returns the control channel.
pub(crate) fn start(program: &Path, folder: &Path) -> io::Result<(Running, UnixStream)> {
    let (near, far) = UnixStream::pair()?;
    let fd = far.as_raw_fd();
    let mut command = Command::new(program);
    command.args(arguments(folder, fd)).stdin(Stdio::null()).stdout(Stdio::null());
    // A terminal's Ctrl-C asks the guest to power down, which may need its TPM until then.
    command.process_group(0);
    // SAFETY: fcntl is safe between fork and exec, and the closure uses nothing else. The
    // descriptor is open until the child has started.
    unsafe {
        command.pre_exec(move || {
            if libc::fcntl(fd, libc::F_SETFD, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    Ok((Running(command.spawn()?), near))
}

/// Returns the arguments. The control channel is an open socket, so no other program can connect,
/// and swtpm ends when this process does. TPM2_Startup is left to the guest, as on hardware.
fn arguments(folder: &Path, fd: i32) -> Vec<OsString> {
    let mut state = OsString::from("dir=");
    state.push(folder);
    vec![
        "socket".into(),
        "--tpm2".into(),
        "--tpmstate".into(),
        state,
        "--ctrl".into(),
        format!("type=unixio,clientfd={fd}").into(),
        "--terminate".into(),
    ]
}
