//! A machine under test: the `synthvm` program with a guest.

use std::fmt;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use guest_images::GuestImage;
use guest_report::agent::{Action, Disk, Event, Output, Sum, Vmbus};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::agent::{Agent, AgentError};
use crate::image::{self, WorkDir};
use crate::inspect::{Inspect, Memory};
use crate::picture::Picture;
use crate::program;

/// Timeout until the guest's init is up. 8 to 15 s are usual in an emulated host.
pub const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// Timeout of the program's end after its guest's.
pub const END_LIMIT: Duration = Duration::from_secs(60);

/// The kernel command line of every guest; tests add to it.
pub(crate) const CMDLINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off synthvm.agent";

/// Bytes of a console that an error shows.
const CONSOLE_TAIL: usize = 4 << 10;

/// The options of a machine.
#[derive(Debug, Clone)]
pub struct VmOptions {
    kernel: PathBuf,
    initrd: PathBuf,
    cmdline: String,
    memory: String,
    cpus: u32,
    arguments: Vec<String>,
}

impl VmOptions {
    /// Returns a machine with one vCPU, 512 MiB and this guest.
    pub fn new(guest: &GuestImage) -> VmOptions {
        VmOptions {
            kernel: guest.kernel.clone(),
            initrd: guest.initrd.clone(),
            cmdline: CMDLINE.to_owned(),
            memory: "512M".to_owned(),
            cpus: 1,
            arguments: Vec::new(),
        }
    }

    /// Sets the RAM, in the syntax of `--memory`.
    #[must_use]
    pub fn memory(mut self, size: &str) -> VmOptions {
        size.clone_into(&mut self.memory);
        self
    }

    /// Sets the number of vCPUs.
    #[must_use]
    pub fn cpus(mut self, count: u32) -> VmOptions {
        self.cpus = count;
        self
    }

    /// Adds a disk.
    #[must_use]
    pub fn disk(self, image: &Path) -> VmOptions {
        let disk = format!("path={}", image.display());
        self.argument("--disk", &disk)
    }

    /// Adds a disk with further keys such as `readonly=on`.
    #[must_use]
    pub fn disk_with(self, image: &Path, keys: &str) -> VmOptions {
        let disk = format!("path={},{keys}", image.display());
        self.argument("--disk", &disk)
    }

    /// Adds a word to the guest's command line.
    #[must_use]
    pub fn cmdline(mut self, word: &str) -> VmOptions {
        self.cmdline.push(' ');
        self.cmdline.push_str(word);
        self
    }

    /// Adds an option of the program.
    #[must_use]
    pub fn argument(mut self, option: &str, value: &str) -> VmOptions {
        self.arguments.extend([option.to_owned(), value.to_owned()]);
        self
    }
}

/// An error of a machine, with the end of its output.
#[derive(Debug)]
pub struct VmError {
    pub(crate) what: String,
    pub(crate) console: String,
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if !self.console.is_empty() {
            write!(f, "\n{}", self.console)?;
        }
        Ok(())
    }
}

impl std::error::Error for VmError {}

/// A running machine. Killed on drop.
#[derive(Debug)]
pub struct Vm {
    child: Child,
    dir: WorkDir,
    agent: Agent,
}

impl Vm {
    /// Starts a machine and waits until its guest is up.
    pub fn boot(options: &VmOptions) -> Result<Vm, VmError> {
        let mut vm = Vm::start(options)?;
        vm.wait_ready()?;
        Ok(vm)
    }

    /// Starts a machine. Does not wait until its guest is up.
    pub fn start(options: &VmOptions) -> Result<Vm, VmError> {
        let early = |what: String| VmError { what, console: String::new() };
        let dir = WorkDir::new().map_err(|e| early(format!("a folder for the machine: {e}")))?;
        let socket = dir.path().join("agent.sock");
        let watch = Watch::new(dir.path()).map_err(|e| early(format!("watching a folder: {e}")))?;
        let log = fs::File::create(dir.path().join("stderr")).map_err(|e| early(e.to_string()))?;
        let child = Command::new(program::path())
            .arg("run")
            .arg("--kernel")
            .arg(&options.kernel)
            .arg("--initrd")
            .arg(&options.initrd)
            .args(["--cmdline", &options.cmdline, "--memory", &options.memory])
            .args(["--cpus", &options.cpus.to_string()])
            .arg("--serial")
            .arg(format!("file={}", dir.path().join("console").display()))
            .arg("--serial2")
            .arg(format!("socket={}", socket.display()))
            .arg("--control")
            .arg(dir.path().join("control.sock"))
            .args(&options.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| early(format!("starting {}: {e}", program::path().display())))?;
        let mut guard = ChildGuard::new(child);
        let agent = watch.connect(&socket, guard.0.as_mut()).and_then(Agent::new);
        match agent.map(|agent| (agent, guard.take())) {
            Ok((agent, Some(child))) => Ok(Vm { child, dir, agent }),
            Ok((_, None)) => Err(early("the program is gone".to_owned())),
            Err(error) => Err(VmError {
                what: format!("the machine did not start: {error}"),
                console: said(&dir),
            }),
        }
    }

    /// Waits until the guest is up, also after a restart.
    pub fn wait_ready(&mut self) -> Result<Event, VmError> {
        let ready = self.agent.ready(BOOT_LIMIT);
        ready.map_err(|e| self.error(format!("waiting for the guest: {e}")))
    }

    /// Sends an action to the guest and returns its value.
    pub fn ask<T: DeserializeOwned>(&mut self, action: Action) -> Result<T, VmError> {
        let answer = self.agent.ask(action);
        answer.map_err(|e| self.error_of_guest(&e))
    }

    /// Sends an action that has no value to the guest.
    pub fn tell(&mut self, action: Action) -> Result<(), VmError> {
        let answer = self.agent.tell(action);
        answer.map_err(|e| self.error_of_guest(&e))
    }

    /// Sends an action that the guest must refuse. Returns its message.
    pub fn refused(&mut self, action: Action) -> Result<String, VmError> {
        match self.agent.tell(action) {
            Err(AgentError::Refused { why, .. }) => Ok(why),
            Err(other) => Err(self.error(other.to_string())),
            Ok(()) => Err(self.error("the guest did not refuse the action".to_owned())),
        }
    }

    /// Starts a long action in the guest.
    pub fn send(&mut self, action: Action) -> Result<(), VmError> {
        let sent = self.agent.send(action);
        sent.map(|_| ()).map_err(|e| self.error(e.to_string()))
    }

    /// Returns the next event of the guest.
    pub fn event(&mut self, limit: Duration) -> Result<Event, VmError> {
        let event = self.agent.event(limit);
        event.map_err(|e| self.error(e.to_string()))
    }

    /// Returns all events until the port closes.
    pub fn events_to_the_end(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.agent.event(END_LIMIT).ok()).collect()
    }

    /// Returns the guest's view of its bus.
    pub fn vmbus(&mut self) -> Result<Vmbus, VmError> {
        self.ask(Action::Vmbus)
    }

    /// Returns the guest's disks, once there are at least `at_least`.
    pub fn disks(&mut self, at_least: usize) -> Result<Vec<Disk>, VmError> {
        self.ask(Action::Disks { at_least, timeout_s: 60 })
    }

    /// Returns the checksum of a whole device or file in the guest.
    pub fn sha256(&mut self, path: &str) -> Result<Sum, VmError> {
        self.ask(Action::Sha256 { path: path.to_owned(), offset: 0, length: None, direct: true })
    }

    /// Runs a program in the guest.
    pub fn run(&mut self, argv: &[&str]) -> Result<Output, VmError> {
        self.ask(Action::Run {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            timeout_s: 120,
        })
    }

    /// Runs a script in the guest's shell, which must exit with 0. Returns its output.
    pub fn shell(&mut self, script: &str) -> Result<String, VmError> {
        let output = self.run(&["sh", "-c", script])?;
        if output.status == 0 {
            return Ok(output.stdout);
        }
        let Output { status, stdout, stderr } = output;
        Err(self
            .error(format!("in the guest, this ended with {status}:\n{script}\n{stdout}{stderr}")))
    }

    /// Returns the current report of `synthvm inspect`.
    pub fn inspect(&self) -> Result<Inspect, VmError> {
        let output = self.command(&["inspect", "--json"], &[])?;
        serde_json::from_slice(&output)
            .map_err(|e| self.error(format!("synthvm inspect --json: {e}")))
    }

    /// Returns the id of the machine's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a request to the control socket over a connection of its own, and returns the value
    /// of the answer. Cheaper than a command, whose program has to start.
    pub fn request(&self, request: &Value) -> Result<Value, VmError> {
        let failed = |error: &dyn fmt::Display| self.error(format!("{request}: {error}"));
        let exchange = || -> io::Result<Value> {
            let mut stream = UnixStream::connect(self.dir.path().join("control.sock"))?;
            stream.set_read_timeout(Some(END_LIMIT))?;
            stream.write_all(format!("{request}\n").as_bytes())?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            Ok(serde_json::from_str(&line)?)
        };
        let mut answer = exchange().map_err(|error| failed(&error))?;
        if answer["ok"] == true { Ok(answer["value"].take()) } else { Err(failed(&answer)) }
    }

    /// Runs `synthvm control SOCK VERB`.
    pub fn control(&self, verb: &str) -> Result<(), VmError> {
        self.command(&["control"], &[verb]).map(|_| ())
    }

    /// Runs `synthvm net SOCK CARD STATE`.
    pub fn set_link(&self, card: &str, state: &str) -> Result<(), VmError> {
        self.command(&["net"], &[card, state]).map(|_| ())
    }

    /// Runs `synthvm memory set SOCK SIZE`.
    pub fn set_memory(&self, size: &str) -> Result<(), VmError> {
        self.command(&["memory", "set"], &[size]).map(|_| ())
    }

    /// Runs `synthvm memory status SOCK --json`.
    pub fn memory_status(&self) -> Result<Memory, VmError> {
        let output = self.command(&["memory", "status", "--json"], &[])?;
        serde_json::from_slice(&output)
            .map_err(|e| self.error(format!("synthvm memory status --json: {e}")))
    }

    /// Runs `synthvm screenshot SOCK FILE`, and returns the picture.
    pub fn screenshot(&self) -> Result<Picture, VmError> {
        let path = self.dir.path().join("screen.png");
        self.command(&["screenshot"], &[&path.display().to_string()])?;
        Picture::read(&path).map_err(|error| self.error(format!("the screenshot: {error}")))
    }

    /// Runs `synthvm send-keys SOCK KEYS`.
    pub fn send_keys(&self, keys: &str) -> Result<(), VmError> {
        self.command(&["send-keys"], &[keys]).map(|_| ())
    }

    /// Runs `synthvm type SOCK TEXT`.
    pub fn type_text(&self, text: &str) -> Result<(), VmError> {
        self.command(&["type"], &[text]).map(|_| ())
    }

    /// Runs `synthvm pointer SOCK X Y` with further options.
    pub fn pointer(&self, x: u32, y: u32, options: &[&str]) -> Result<(), VmError> {
        let (x, y) = (x.to_string(), y.to_string());
        self.command(&["pointer"], &[&[x.as_str(), &y], options].concat()).map(|_| ())
    }

    /// Runs `synthvm BEFORE SOCK AFTER`, which must succeed. Returns its output.
    pub fn synthvm(&self, before: &[&str], after: &[&str]) -> Result<String, VmError> {
        let output = self.command(before, after)?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// Runs `synthvm BEFORE SOCK AFTER`, which must fail. Returns its exit status and its message.
    pub fn synthvm_fails(
        &self,
        before: &[&str],
        after: &[&str],
    ) -> Result<(Option<i32>, String), VmError> {
        match self.run_command(before, after)? {
            (status, _) if status.success() => {
                Err(self.error(format!("synthvm {} has succeeded", before.join(" "))))
            }
            (status, _) => {
                let path = self.dir.path().join("command.err");
                Ok((status.code(), fs::read_to_string(path).unwrap_or_default()))
            }
        }
    }

    /// Runs `synthvm metrics SOCK` and returns its text.
    pub fn metrics(&self) -> Result<String, VmError> {
        let output = self.command(&["metrics"], &[])?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// Runs `synthvm disk add SOCK DISK`, where `disk` is a path with keys.
    pub fn add_disk(&self, disk: &str) -> Result<(), VmError> {
        self.command(&["disk", "add"], &[disk]).map(|_| ())
    }

    /// Runs `synthvm disk add SOCK --dvd DRIVE`, where `drive` is a path with keys.
    pub fn add_dvd(&self, drive: &str) -> Result<(), VmError> {
        self.command(&["disk", "add"], &["--dvd", drive]).map(|_| ())
    }

    /// Runs `synthvm disk remove SOCK ID`.
    pub fn remove_disk(&self, id: &str) -> Result<(), VmError> {
        self.command(&["disk", "remove"], &[id]).map(|_| ())
    }

    /// Runs `synthvm disk resize SOCK ID SIZE`.
    pub fn resize_disk(&self, id: &str, size: &str) -> Result<(), VmError> {
        self.command(&["disk", "resize"], &[id, size]).map(|_| ())
    }

    /// Starts the command of [`Vm::resize_disk`] without waiting for its end. Killed on drop.
    pub fn begin_resize(&self, id: &str, size: &str) -> Result<Begun, VmError> {
        self.begin(&["disk", "resize"], &[id, size])
    }

    /// Starts `synthvm BEFORE SOCK AFTER` without waiting for its end. Killed on drop.
    pub fn begin(&self, before: &[&str], after: &[&str]) -> Result<Begun, VmError> {
        let socket = self.dir.path().join("control.sock");
        let mut command = Command::new(program::path());
        command.args(before).arg(socket).args(after);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        child
            .map(|child| Begun(ChildGuard::new(child)))
            .map_err(|error| self.error(error.to_string()))
    }

    /// Waits until the program has printed `words`, even while the program is blocked.
    pub fn wait_said(&mut self, words: &str) -> Result<(), VmError> {
        let end = Instant::now() + END_LIMIT;
        while !self.said().contains(words) {
            let ended = wait_child(&mut self.child, Duration::from_millis(100));
            if matches!(ended, Ok(None)) && Instant::now() < end || self.said().contains(words) {
                continue;
            }
            return Err(self.error(format!("synthvm did not print {words:?}; it ended: {ended:?}")));
        }
        Ok(())
    }

    /// Runs `synthvm disk insert SOCK ID FILE`.
    pub fn insert_disc(&self, id: &str, image: &Path) -> Result<(), VmError> {
        self.command(&["disk", "insert"], &[id, &image.display().to_string()]).map(|_| ())
    }

    /// Runs `synthvm disk eject SOCK ID`.
    pub fn eject_disc(&self, id: &str) -> Result<(), VmError> {
        self.command(&["disk", "eject"], &[id]).map(|_| ())
    }

    /// Sends a signal to the program.
    pub fn signal(&self, number: i32) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            // SAFETY: kill takes no pointer; the child is not reaped, so the id is still its own.
            unsafe { libc::kill(id, number) };
        }
    }

    /// Waits for the program to end.
    pub fn wait(&mut self) -> Result<ExitStatus, VmError> {
        match wait_child(&mut self.child, END_LIMIT) {
            Ok(Some(status)) => Ok(status),
            Ok(None) => {
                Err(self.error(format!("synthvm did not end within {} s", END_LIMIT.as_secs())))
            }
            Err(error) => Err(self.error(format!("waiting for synthvm: {error}"))),
        }
    }

    /// Powers the guest off and returns the program's exit status.
    pub fn power_off(mut self) -> Result<ExitStatus, VmError> {
        self.tell(Action::Poweroff)?;
        self.wait()
    }

    /// Returns the path of the file with the output of the guest's first serial port.
    pub fn console_path(&self) -> PathBuf {
        self.dir.path().join("console")
    }

    /// Returns the text of `synthvm inspect` for people.
    pub fn inspect_text(&self) -> Result<String, VmError> {
        let output = self.command(&["inspect"], &[])?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// Returns the output of the guest's console and of the program so far.
    pub fn said(&self) -> String {
        said(&self.dir)
    }

    fn command(&self, before: &[&str], after: &[&str]) -> Result<Vec<u8>, VmError> {
        let (status, output) = self.run_command(before, after)?;
        if status.success() {
            return Ok(output);
        }
        let words = fs::read_to_string(self.dir.path().join("command.err")).unwrap_or_default();
        Err(self.error(format!("synthvm {} ended with {status}: {words}", before.join(" "))))
    }

    fn run_command(
        &self,
        before: &[&str],
        after: &[&str],
    ) -> Result<(ExitStatus, Vec<u8>), VmError> {
        let name = before.join(" ");
        let failed = |e: io::Error| self.error(format!("synthvm {name}: {e}"));
        // Files, not pipes: nothing must be read during the wait, so a program that hangs cannot
        // block this one.
        let out = self.dir.path().join("command.out");
        let err = self.dir.path().join("command.err");
        let mut child = Command::new(program::path())
            .args(before)
            .arg(self.dir.path().join("control.sock"))
            .args(after)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out).map_err(failed)?)
            .stderr(fs::File::create(&err).map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        match wait_child(&mut child, END_LIMIT).map_err(failed)? {
            Some(status) => Ok((status, fs::read(&out).map_err(failed)?)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                Err(self.error(format!(
                    "synthvm {name} did not answer within {} s",
                    END_LIMIT.as_secs()
                )))
            }
        }
    }

    /// Returns an error of the guest, with the host's view if the guest did not answer. Two reports
    /// distinguish a machine that has stopped from a slow one.
    fn error_of_guest(&self, error: &AgentError) -> VmError {
        let mut what = error.to_string();
        if !matches!(error, AgentError::Refused { .. }) {
            for _ in 0..2 {
                let report = self.inspect_text().unwrap_or_else(|error| error.to_string());
                what.push_str(&format!("\n--- synthvm inspect ---\n{report}"));
                what.push_str(&format!("\n--- synthvm's threads ---\n{}", self.threads()));
            }
        }
        self.error(what)
    }

    /// Returns the name, the state and the CPU time (user, system; in clock ticks, proc(5)) of each
    /// thread of the program: vCPUs that are halted use none.
    fn threads(&self) -> String {
        let folder = format!("/proc/{}/task", self.child.id());
        let mut text = String::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // The name is in parentheses, and may itself have spaces.
            let Some((start, rest)) = stat.rsplit_once(')') else { continue };
            let name = start.split_once('(').map_or("", |(_, name)| name);
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let [state, user, system] = [0, 11, 12].map(|at| fields.get(at).unwrap_or(&"?"));
            text.push_str(&format!("{name} {state} {user} {system}\n"));
        }
        text
    }

    fn error(&self, what: String) -> VmError {
        VmError { what, console: self.said() }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that is still running.
pub struct Begun(ChildGuard);

impl Begun {
    /// Waits for the command to end. Returns whether it succeeded.
    pub fn succeeds(mut self) -> io::Result<bool> {
        let Some(child) = self.0.0.as_mut() else { return Ok(false) };
        Ok(wait_child(child, END_LIMIT)?.is_some_and(|status| status.success()))
    }

    /// Returns whether the command is still running.
    pub fn waits(&mut self) -> io::Result<bool> {
        let Some(child) = self.0.0.as_mut() else { return Ok(false) };
        Ok(child.try_wait()?.is_none())
    }
}

/// A child that is killed on drop.
pub(crate) struct ChildGuard(Option<Child>);

impl ChildGuard {
    pub(crate) fn new(child: Child) -> ChildGuard {
        ChildGuard(Some(child))
    }

    pub(crate) fn take(&mut self) -> Option<Child> {
        self.0.take()
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn said(dir: &WorkDir) -> String {
    let mut text = String::new();
    for (title, name) in [("guest's console", "console"), ("synthvm's messages", "stderr")] {
        let tail = image::tail(&dir.path().join(name), CONSOLE_TAIL);
        if !tail.trim().is_empty() {
            text.push_str(&format!("--- the end of the {title} ---\n{}\n", tail.trim_end()));
        }
    }
    text
}

/// Waits for a child by its process descriptor. Returns `None` if it still runs.
pub(crate) fn wait_child(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    if let Some(status) = child.try_wait()? {
        return Ok(Some(status));
    }
    // SAFETY: the call takes no pointer, and its result is checked before it is owned.
    let handle = unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, child.id(), 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?)
    };
    poll(&handle, limit)?;
    child.try_wait()
}

/// Waits until the descriptor is readable. Returns false after the timeout.
pub(crate) fn poll(fd: &impl AsRawFd, limit: Duration) -> io::Result<bool> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the entry lives through the call.
        let result = unsafe { libc::poll(&raw mut entry, 1, milliseconds) };
        if result >= 0 {
            return Ok(result > 0);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// A watch for new files in a folder.
pub(crate) struct Watch {
    fd: OwnedFd,
}

impl Watch {
    pub(crate) fn new(dir: &Path) -> io::Result<Watch> {
        use std::os::unix::ffi::OsStrExt;
        let path = std::ffi::CString::new(dir.as_os_str().as_bytes()).map_err(io::Error::other)?;
        // SAFETY: the path lives through the calls; the descriptor is checked before it is owned.
        unsafe {
            let fd = libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = OwnedFd::from_raw_fd(fd);
            let mask = libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_ATTRIB;
            if libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), mask) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Watch { fd })
        }
    }

    /// Connects to a socket as soon as a program listens, or returns the reason why none will.
    pub(crate) fn connect(
        &self,
        socket: &Path,
        mut child: Option<&mut Child>,
    ) -> io::Result<UnixStream> {
        let end = Instant::now() + BOOT_LIMIT;
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => return Ok(stream),
                Err(error) if Instant::now() > end => return Err(error),
                Err(_) => {}
            }
            if let Some(status) =
                child.as_mut().map(|child| child.try_wait()).transpose()?.flatten()
            {
                return Err(io::Error::other(format!("synthvm ended with {status}")));
            }
            // A name exists shortly before a program listens, and the child's death creates no
            // file: check again after this time.
            poll(&self.fd, Duration::from_millis(50))?;
            let mut events = [0_u8; 4096];
            // SAFETY: the buffer is as long as stated.
            unsafe { libc::read(self.fd.as_raw_fd(), events.as_mut_ptr().cast(), events.len()) };
        }
    }
}
