//! A machine that stock firmware starts: under SynthVM, or emulated by QEMU to prove the image.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use guest_images::firmware::OvmfFiles;

use crate::console::Console;
use crate::image::{self, WorkDir};
use crate::picture::Picture;
use crate::vm::{ChildGuard, END_LIMIT, VmError, Watch, poll, wait_child};
use crate::{host, program};

/// Timeout for the emulator to open its console.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of the program's messages that an error shows.
const SAID_TAIL: usize = 4 << 10;

/// The options of a machine.
#[derive(Debug, Clone)]
pub struct FirmwareOptions {
    firmware: OvmfFiles,
    template: PathBuf,
    variables: Option<PathBuf>,
    driver: Option<PathBuf>,
    disks: Vec<PathBuf>,
    discs: Vec<PathBuf>,
    memory: String,
    cpus: u32,
    arguments: Vec<String>,
}

impl FirmwareOptions {
    /// Returns a machine with one vCPU, 512 MiB, this firmware and no disk.
    #[must_use]
    pub fn new(firmware: &OvmfFiles) -> FirmwareOptions {
        FirmwareOptions {
            firmware: firmware.clone(),
            template: firmware.vars.clone(),
            variables: None,
            driver: None,
            disks: Vec::new(),
            discs: Vec::new(),
            memory: "512M".to_owned(),
            cpus: 1,
            arguments: Vec::new(),
        }
    }

    /// Switches Secure Boot on. Under SynthVM this needs [`FirmwareOptions::variables`].
    #[must_use]
    pub fn secure(mut self) -> FirmwareOptions {
        self.template = self.firmware.vars_secure.clone();
        self
    }

    /// Keeps the firmware's variables in this file, which the machine creates.
    #[must_use]
    pub fn variables(mut self, path: &Path) -> FirmwareOptions {
        self.variables = Some(path.to_owned());
        self
    }

    /// Gives firmware under SynthVM a driver for VMBus, in this option ROM.
    #[must_use]
    pub fn driver(mut self, rom: &Path) -> FirmwareOptions {
        self.driver = Some(rom.to_owned());
        self
    }

    /// Adds a disk. The machine writes to the image.
    #[must_use]
    pub fn disk(mut self, image: &Path) -> FirmwareOptions {
        self.disks.push(image.to_owned());
        self
    }

    /// Adds a DVD drive with a disc.
    #[must_use]
    pub fn disc(mut self, image: &Path) -> FirmwareOptions {
        self.discs.push(image.to_owned());
        self
    }

    /// Sets the RAM, such as `5G`.
    #[must_use]
    pub fn memory(mut self, size: &str) -> FirmwareOptions {
        size.clone_into(&mut self.memory);
        self
    }

    /// Sets the number of vCPUs.
    #[must_use]
    pub fn cpus(mut self, count: u32) -> FirmwareOptions {
        self.cpus = count;
        self
    }

    /// Adds an option of `synthvm run`.
    #[must_use]
    pub fn argument(mut self, option: &str, value: &str) -> FirmwareOptions {
        self.arguments.extend([option.to_owned(), value.to_owned()]);
        self
    }

    fn synthvm(&self, socket: &Path) -> Command {
        let mut command = Command::new(program::path());
        command
            .args(["run", "--memory", &self.memory, "--cpus", &self.cpus.to_string()])
            .args(["--serial", &format!("socket={}", socket.display())])
            .args(["--firmware", &self.synthvm_firmware()]);
        let mut vars = format!("template={}", self.template.display());
        if let Some(path) = &self.variables {
            vars.push_str(&format!(",path={}", path.display()));
            command.args(["--firmware-vars", &vars]);
        }
        for disk in &self.disks {
            command.args(["--disk", &format!("path={}", disk.display())]);
        }
        for disc in &self.discs {
            command.args(["--dvd", &format!("path={}", disc.display())]);
        }
        command.args(&self.arguments);
        command
    }

    fn synthvm_firmware(&self) -> String {
        let code = format!("path={}", self.firmware.code.display());
        match &self.driver {
            Some(rom) => format!("{code},option-rom={}", rom.display()),
            None => code,
        }
    }

    fn qemu(
        &self,
        processor: &[&str],
        socket: &Path,
        variables: &Path,
    ) -> Result<Command, VmError> {
        let flash = |path: &Path, readonly: &str| {
            format!("if=pflash,format=raw,readonly={readonly},file={}", path.display())
        };
        let mut command = Command::new(host::emulator().map_err(|e| early(e.to_string()))?);
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-M", "pc"])
            .args(processor)
            .args(["-m", &self.memory, "-smp", &self.cpus.to_string()])
            .args(["-drive", &flash(&self.firmware.code, "on")])
            .args(["-drive", &flash(variables, "off")])
            .args(["-chardev", &format!("socket,id=console,path={}", socket.display())])
            .args(["-serial", "chardev:console"]);
        for (number, disk) in self.disks.iter().enumerate() {
            let drive = format!("if=none,id=d{number},format=raw,file={}", disk.display());
            command.args(["-drive", &drive]);
            command.args(["-device", &format!("virtio-blk-pci,drive=d{number}")]);
        }
        for disc in &self.discs {
            let drive = format!("if=ide,media=cdrom,format=raw,file={}", disc.display());
            command.args(["-drive", &drive]);
        }
        Ok(command)
    }
}

/// A running machine. Killed on drop.
#[derive(Debug)]
pub struct FirmwareMachine {
    /// The first serial port, which firmware and guest use as their console.
    pub console: Console,
    child: Child,
    dir: WorkDir,
}

impl FirmwareMachine {
    /// Starts a machine under SynthVM.
    ///
    /// # Errors
    /// The program refuses the options or ends.
    pub fn start(options: &FirmwareOptions) -> Result<FirmwareMachine, VmError> {
        let dir = WorkDir::new().map_err(|e| early(format!("a folder for the machine: {e}")))?;
        let socket = dir.path().join("console.sock");
        let watch = Watch::new(dir.path()).map_err(|e| early(format!("watching a folder: {e}")))?;
        let mut command = options.synthvm(&socket);
        command.arg("--control").arg(dir.path().join("control.sock"));
        FirmwareMachine::spawn(dir, command, |child| watch.connect(&socket, Some(child)))
    }

    /// Starts a machine in the emulator, whose disks are virtio-blk and whose discs are IDE.
    ///
    /// # Errors
    /// The emulator cannot be fetched, or ends.
    pub fn emulated(options: &FirmwareOptions) -> Result<FirmwareMachine, VmError> {
        FirmwareMachine::qemu(options, &["-accel", "tcg", "-cpu", host::PROCESSOR])
    }

    /// Starts a machine in QEMU with KVM, whose disks are virtio-blk and whose discs are IDE.
    ///
    /// # Errors
    /// The emulator cannot be fetched, or ends.
    pub fn peer(options: &FirmwareOptions) -> Result<FirmwareMachine, VmError> {
        FirmwareMachine::qemu(options, &["-accel", "kvm", "-cpu", "host"])
    }

    fn qemu(options: &FirmwareOptions, processor: &[&str]) -> Result<FirmwareMachine, VmError> {
        let dir = WorkDir::new().map_err(|e| early(format!("a folder for the machine: {e}")))?;
        let socket = dir.path().join("console.sock");
        // The emulator connects to this socket, so no output of the guest is lost.
        let listener = UnixListener::bind(&socket).map_err(|e| early(e.to_string()))?;
        let variables = match &options.variables {
            Some(path) => path.clone(),
            None => dir.path().join("variables"),
        };
        if !variables.exists() {
            fs::copy(&options.template, &variables).map_err(|e| early(e.to_string()))?;
        }
        let command = options.qemu(processor, &socket, &variables)?;
        FirmwareMachine::spawn(dir, command, |_| {
            if !poll(&listener, CONNECT_LIMIT)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            listener.accept().map(|(stream, _)| stream)
        })
    }

    fn spawn(
        dir: WorkDir,
        mut command: Command,
        connect: impl FnOnce(&mut Child) -> io::Result<std::os::unix::net::UnixStream>,
    ) -> Result<FirmwareMachine, VmError> {
        let log = File::create(dir.path().join("stderr")).map_err(|e| early(e.to_string()))?;
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let mut child = child.map_err(|e| early(format!("starting {program}: {e}")))?;
        match connect(&mut child).and_then(Console::new) {
            Ok(console) => Ok(FirmwareMachine { console, child, dir }),
            Err(error) => {
                drop(ChildGuard::new(child));
                let console = image::tail(&dir.path().join("stderr"), SAID_TAIL);
                Err(VmError { what: format!("the machine did not start: {error}"), console })
            }
        }
    }

    /// Returns the program's messages.
    #[must_use]
    pub fn said(&self) -> String {
        image::tail(&self.dir.path().join("stderr"), SAID_TAIL)
    }

    /// Runs `synthvm screenshot SOCK FILE`, and returns the picture.
    ///
    /// # Errors
    /// The command fails, for example because the guest shows no picture.
    pub fn screenshot(&self) -> Result<Picture, VmError> {
        let path = self.dir.path().join("screen.png");
        self.command("screenshot", &path.display().to_string())?;
        if let Some(folder) = std::env::var_os("SYNTHVM_RESULTS") {
            // A copy for people, of the last picture.
            let _ = fs::copy(&path, Path::new(&folder).join("firmware-screen.png"));
        }
        Picture::read(&path).map_err(|error| early(format!("the screenshot: {error}")))
    }

    /// Takes screenshots until `find` finds something in one.
    ///
    /// # Errors
    /// It finds nothing in time, or there is no picture.
    pub fn wait_for_picture<T>(
        &self,
        limit: Duration,
        find: impl Fn(&Picture) -> Option<T>,
    ) -> Result<T, VmError> {
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = find(&self.screenshot()?) {
                return Ok(found);
            }
            if Instant::now() > end {
                let what = format!("the screen shows something else after {} s", limit.as_secs());
                return Err(VmError { what, console: self.console.transcript() });
            }
        }
    }

    /// Runs `synthvm send-keys SOCK KEYS`.
    ///
    /// # Errors
    /// The command fails, for example because the guest takes no keys.
    pub fn send_keys(&self, keys: &str) -> Result<(), VmError> {
        self.command("send-keys", keys)
    }

    fn command(&self, name: &str, argument: &str) -> Result<(), VmError> {
        let mut command = Command::new(program::path());
        command.arg(name).arg(self.dir.path().join("control.sock")).arg(argument);
        let output = command.output().map_err(|e| early(format!("synthvm {name}: {e}")))?;
        if output.status.success() {
            return Ok(());
        }
        let console = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(VmError { what: format!("synthvm {name} ended with {}", output.status), console })
    }

    /// Waits for the program to end.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn wait(&mut self) -> Result<ExitStatus, VmError> {
        self.wait_for(END_LIMIT)
    }

    /// Waits this long for the program to end.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn wait_for(&mut self, limit: Duration) -> Result<ExitStatus, VmError> {
        match wait_child(&mut self.child, limit) {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(VmError {
                what: format!("the machine did not end within {} s", limit.as_secs()),
                console: self.console.transcript(),
            }),
            Err(error) => Err(early(format!("waiting for the machine: {error}"))),
        }
    }
}

impl Drop for FirmwareMachine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn early(what: String) -> VmError {
    VmError { what, console: String::new() }
}
