//! One emulated host: its start, commands in it, and its end.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::{env, process, thread};

use guest_images::cache::{target_dir, workspace_dir};
use guest_images::progress::{Task, step};
use guest_report::host::{Event, Frame, PORT_NAME, Request, Setup};

use super::image::{HostImage, emulator};
use super::{EMULATED, HostError, HostOptions, INSIDE, OutputSink, RESULTS, START_ATTEMPTS, START_DEADLINE};

/// The descriptor under which the emulator finds its end of the channel.
const CHANNEL_FD: i32 = 3;

/// How much of a console is shown when something went wrong.
const CONSOLE_TAIL: u64 = 6 << 10;

/// A running emulated host. It ends when dropped, and also when this process ends.
#[derive(Debug)]
pub struct EmulatedHost {
    channel: UnixStream,
    frames: Receiver<Frame>,
    emulator: Emulator,
    options: HostOptions,
}

impl EmulatedHost {
    /// Starts a host and waits until it is ready. One that does not start is tried again: the emulator has a known race
    /// while a kernel with several processors patches its own text.
    pub fn start(options: &HostOptions) -> Result<EmulatedHost, HostError> {
        let program = emulator()?;
        let image = HostImage::build(&options.kernel)?;
        let mut attempt = 1;
        loop {
            let cpus = options.cpus;
            let processors = if cpus == 1 { "processor" } else { "processors" };
            let task = Task::start(&format!(
                "starting the emulated test host ({} MiB, {cpus} {processors})",
                options.memory_mib
            ));
            match EmulatedHost::start_once(options, &program, &image) {
                Err(HostError::NotStarted { why, .. }) if attempt < START_ATTEMPTS => {
                    drop(task);
                    step(&format!("the test host did not start ({why}); trying again"));
                    attempt += 1;
                }
                Err(HostError::NotStarted { why, console, .. }) => {
                    return Err(HostError::NotStarted { attempts: attempt, why, console });
                }
                Ok((host, kernel)) => {
                    task.finish();
                    step(&format!("the test host is ready: Linux {kernel}, with KVM"));
                    return Ok(host);
                }
                Err(other) => return Err(other),
            }
        }
    }

    /// Returns the host and the release of its kernel.
    fn start_once(
        options: &HostOptions,
        program: &Path,
        image: &HostImage,
    ) -> Result<(EmulatedHost, String), HostError> {
        let (ours, theirs) = UnixStream::pair().map_err(|e| prepare("making a socket", &e))?;
        let emulator = Emulator::spawn(options, program, image, &theirs)?;
        // Only the emulator holds its end now, so its death is our end of file.
        drop(theirs);
        let reader = ours.try_clone().map_err(|e| prepare("copying a socket", &e))?;
        let (sender, frames) = mpsc::channel();
        thread::spawn(move || {
            let mut reader = io::BufReader::with_capacity(64 << 10, reader);
            while let Ok(Some(frame)) = Frame::read(&mut reader) {
                if sender.send(frame).is_err() {
                    return;
                }
            }
        });
        let host = EmulatedHost { channel: ours, frames, emulator, options: options.clone() };
        let not_started = |why: String| HostError::NotStarted { attempts: 1, why, console: host.console() };
        match host.frames.recv_timeout(START_DEADLINE) {
            Ok(Frame::Event(Event::Ready { kvm: true, kernel, .. })) => Ok((host, kernel)),
            Ok(Frame::Event(Event::Ready { kvm: false, .. })) => {
                Err(not_started("it has no /dev/kvm".to_owned()))
            }
            Ok(Frame::Event(Event::Broken { why })) => Err(not_started(why)),
            Ok(frame) => Err(not_started(format!("it said {frame:?}"))),
            Err(RecvTimeoutError::Timeout) => {
                Err(not_started(format!("it was not ready after {} s", START_DEADLINE.as_secs())))
            }
            Err(RecvTimeoutError::Disconnected) => Err(not_started("it died while it started".to_owned())),
        }
    }

    /// Runs one command to its end. `extra` is added to this process's environment.
    pub fn run(
        &self,
        argv: &[String],
        extra: &[(String, String)],
        sink: &mut dyn OutputSink,
    ) -> Result<i32, HostError> {
        let request = self.request(argv, extra)?;
        let died = |why: String| HostError::Died { why, console: self.console() };
        Frame::Request(request)
            .write(&mut &self.channel)
            .map_err(|e| died(format!("it does not take the command: {e}")))?;
        loop {
            match self.frames.recv_timeout(self.options.quiet_limit) {
                Ok(Frame::Stdout(bytes)) => sink.stdout(&bytes),
                Ok(Frame::Stderr(bytes)) => sink.stderr(&bytes),
                Ok(Frame::Event(Event::Exited { code })) => return Ok(code),
                Ok(Frame::Event(Event::NotStarted { why, not_found })) => {
                    return Err(HostError::Command { why, not_found });
                }
                Ok(frame) => return Err(died(format!("it said {frame:?}"))),
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = self.options.quiet_limit.as_secs();
                    return Err(HostError::Hung { seconds, console: self.console() });
                }
                Err(RecvTimeoutError::Disconnected) => return Err(died("it closed its channel".to_owned())),
            }
        }
    }

    fn request(&self, argv: &[String], extra: &[(String, String)]) -> Result<Request, HostError> {
        let dir = env::current_dir().map_err(|e| prepare("finding the current directory", &e))?;
        let mut environment: Vec<(String, String)> = env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        environment.push((RESULTS.to_owned(), self.options.results.display().to_string()));
        environment.push((INSIDE.to_owned(), EMULATED.to_owned()));
        environment.extend_from_slice(extra);
        Ok(Request { argv: argv.to_vec(), env: environment, dir: dir.display().to_string() })
    }

    /// The end of what the host's kernel and the emulator said.
    fn console(&self) -> String {
        self.emulator.console()
    }
}

fn prepare(doing: &str, error: &io::Error) -> HostError {
    HostError::Prepare(format!("{doing}: {error}"))
}

/// The emulator's process and its folder.
#[derive(Debug)]
struct Emulator {
    child: Child,
    folder: PathBuf,
}

impl Emulator {
    fn spawn(
        options: &HostOptions,
        program: &Path,
        image: &HostImage,
        channel: &UnixStream,
    ) -> Result<Emulator, HostError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folders = target_dir().join("host");
        remove_abandoned(&folders);
        let folder = folders.join(format!("{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&folder).map_err(|e| prepare("making the host's folder", &e))?;
        let initrd = folder.join("initrd");
        let setup = setup(options, image)?;
        fs::write(&initrd, image.initrd_with(&setup)?)
            .map_err(|e| prepare("writing the host's initrd", &e))?;
        let log = File::create(folder.join("emulator.log")).map_err(|e| prepare("making a log", &e))?;
        let mut command = Command::new(program);
        command
            .args(arguments(options, image, &initrd, &folder.join("console.log")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let fd = channel.as_raw_fd();
        let parent = process::id();
        // SAFETY: the closure makes only calls that are safe between fork and exec, on descriptors that are open.
        unsafe {
            command.pre_exec(move || {
                // A copy onto itself would keep the close-on-exec flag.
                let result = if fd == CHANNEL_FD {
                    libc::fcntl(fd, libc::F_SETFD, 0)
                } else {
                    libc::dup2(fd, CHANNEL_FD)
                };
                if result < 0 {
                    return Err(io::Error::last_os_error());
                }
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::getppid().cast_unsigned() != parent {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                Ok(())
            });
        }
        let child = spawn_outliving(command).map_err(|e| prepare("starting the emulator", &e))?;
        Ok(Emulator { child, folder })
    }

    fn console(&self) -> String {
        let mut text = String::new();
        for (title, file) in [("console", "console.log"), ("emulator", "emulator.log")] {
            let tail = tail(&self.folder.join(file));
            if !tail.trim().is_empty() {
                text.push_str(&format!("--- the end of the test host's {title} ---\n{}\n", tail.trim_end()));
            }
        }
        text
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Starts a command from a thread that never ends: the kernel sends a parent's death signal when the thread that
/// started the child ends, not the process.
fn spawn_outliving(mut command: Command) -> io::Result<Child> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let _ = sender.send(command.spawn());
        loop {
            thread::park();
        }
    });
    receiver.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
}

/// Removes the folders of processes that were killed before they could.
fn remove_abandoned(folders: &Path) {
    for entry in fs::read_dir(folders).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let alive = name.split('-').next().is_some_and(|id| Path::new("/proc").join(id).exists());
        if !alive {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn tail(path: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(CONSOLE_TAIL)))?;
        let mut bytes = Vec::new();
        file.take(CONSOLE_TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

fn setup(options: &HostOptions, image: &HostImage) -> Result<Setup, HostError> {
    let dir = env::current_dir().map_err(|e| prepare("finding the current directory", &e))?;
    let mut keep: Vec<String> = Vec::new();
    for folder in
        [workspace_dir(), target_dir(), guest_images::cache::Cache::project().root().to_owned(), dir]
    {
        let folder = folder.canonicalize().map_err(|e| prepare("resolving a folder", &e))?;
        let text = folder.display().to_string();
        // Only what the new /tmp would hide; /tmp itself cannot be both new and kept.
        if folder.starts_with("/tmp")
            && folder != Path::new("/tmp")
            && !keep.iter().any(|k| folder.starts_with(k))
        {
            keep.push(text);
        }
    }
    let results = options.results.canonicalize().map_err(|e| prepare("resolving the results folder", &e))?;
    Ok(Setup { keep, results: results.display().to_string(), modules: image.modules.display().to_string() })
}

fn arguments(options: &HostOptions, image: &HostImage, initrd: &Path, console: &Path) -> Vec<String> {
    let memory = options.memory_mib.to_string();
    let cpus = options.cpus.to_string();
    let kernel = image.kernel.display().to_string();
    let initrd = initrd.display().to_string();
    let console = format!("file,id=console,path={}", quoted(console));
    let results = quoted(&options.results);
    let channel = format!("socket,id=channel,fd={CHANNEL_FD}");
    let port = format!("virtserialport,chardev=channel,name={PORT_NAME}");
    let root = "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap".to_owned();
    let share = format!("local,id=results,path={results},security_model=none,multidevs=remap");
    // One processor at the start: the others come online when the kernel has patched its text.
    let cmdline = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable maxcpus=1".to_owned();
    [
        ["-machine", "q35"].map(str::to_owned).to_vec(),
        ["-accel", "tcg,thread=multi", "-cpu", "max,-la57"].map(str::to_owned).to_vec(),
        vec!["-m".into(), memory, "-smp".into(), cpus],
        ["-nodefaults", "-no-reboot", "-display", "none"].map(str::to_owned).to_vec(),
        vec!["-kernel".into(), kernel, "-initrd".into(), initrd, "-append".into(), cmdline],
        vec!["-chardev".into(), console, "-serial".into(), "chardev:console".into()],
        vec![
            "-device".into(),
            "virtio-serial-pci".into(),
            "-chardev".into(),
            channel,
            "-device".into(),
            port,
        ],
        vec!["-fsdev".into(), root, "-device".into(), "virtio-9p-pci,fsdev=root,mount_tag=hostroot".into()],
        vec![
            "-fsdev".into(),
            share,
            "-device".into(),
            "virtio-9p-pci,fsdev=results,mount_tag=results".into(),
        ],
        vec!["-object".into(), "rng-random,id=rng,filename=/dev/urandom".into()],
        vec!["-device".into(), "virtio-rng-pci,rng=rng".into()],
    ]
    .concat()
}

/// A path as the emulator's option lists want it: a comma would end it.
fn quoted(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_quoted_path_with_a_comma_stays_one_value() {
        assert_eq!(quoted(Path::new("/a,b")), "/a,,b");
    }

    #[test]
    fn test_tail_of_a_long_file_is_its_end() {
        let path = env::temp_dir().join(format!("synthvm-tail-{}", process::id()));
        let mut text = "x".repeat(10_000);
        text.push_str("the end");
        fs::write(&path, &text).unwrap();
        let found = tail(&path);
        assert!(found.ends_with("the end"));
        assert_eq!(found.len() as u64, CONSOLE_TAIL);
        fs::remove_file(&path).unwrap();
        assert_eq!(tail(&path), "");
    }
}
