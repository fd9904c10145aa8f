//! The emulator's process: its command line, its descriptors, its logs.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, process, thread};

use guest_images::cache::{target_dir, workspace_dir};
use guest_report::host::{PORT_NAME, Setup};

use super::image::HostImage;
use super::monitor::Monitor;
use super::{HostError, HostOptions, prepare};
use crate::vm::wait_child;

/// The descriptors of the channel and of the monitor in the emulator.
const CHANNEL_FD: i32 = 3;
const MONITOR_FD: i32 = 4;

/// The first descriptor number that does not conflict while the others are moved.
const SPARE_FD: i32 = 10;

/// Bytes at the end of a console that an error shows.
const CONSOLE_TAIL: u64 = 6 << 10;

/// The logs of an emulator, in its folder.
const CONSOLE_LOG: &str = "console.log";
const EMULATOR_LOG: &str = "emulator.log";
const MONITOR_LOG: &str = "monitor.log";

/// Timeout for the end of an emulator that has closed its channel.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Number of lost hosts whose logs are kept.
const LOGS_KEPT: usize = 40;

/// A running emulator and its folder.
#[derive(Debug)]
pub(super) struct Emulator {
    child: Child,
    folder: PathBuf,
}

impl Emulator {
    /// Starts an emulator. Returns it and this process's end of its monitor.
    pub(super) fn spawn(
        options: &HostOptions,
        program: &Path,
        image: &HostImage,
        channel: &UnixStream,
    ) -> Result<(Emulator, Monitor), HostError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folders = target_dir().join("host");
        remove_abandoned(&folders);
        let folder =
            folders.join(format!("{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&folder).map_err(|e| prepare("making the host's folder", &e))?;
        let initrd = folder.join("initrd");
        let setup = setup(options, image)?;
        fs::write(&initrd, image.initrd_with(&setup)?)
            .map_err(|e| prepare("writing the host's initrd", &e))?;
        let log =
            File::create(folder.join(EMULATOR_LOG)).map_err(|e| prepare("making a log", &e))?;
        let (ours, theirs) = UnixStream::pair().map_err(|e| prepare("making a socket", &e))?;
        let monitor =
            Monitor::new(ours, folder.join(MONITOR_LOG)).map_err(|e| prepare("a monitor", &e))?;
        let mut command = Command::new(program);
        command
            .args(arguments(options, image, &initrd, &folder.join(CONSOLE_LOG)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        give_descriptors(&mut command, [channel.as_raw_fd(), theirs.as_raw_fd()]);
        let child = spawn_outliving(command).map_err(|e| prepare("starting the emulator", &e))?;
        Ok((Emulator { child, folder }, monitor))
    }

    /// Returns the emulator's process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the output of the host's kernel on its console.
    pub(super) fn console(&self) -> String {
        let bytes = fs::read(self.folder.join(CONSOLE_LOG)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns the exit status of an emulator that has closed its channel.
    pub(super) fn end(&mut self) -> Option<ExitStatus> {
        wait_child(&mut self.child, END_LIMIT).ok().flatten()
    }

    /// Keeps the logs of a lost host. Returns their ends and their folder.
    pub(super) fn lost(&self) -> String {
        let mut text = String::new();
        for (title, file) in [("console", CONSOLE_LOG), ("emulator", EMULATOR_LOG)] {
            let tail = tail(&self.folder.join(file));
            if !tail.trim().is_empty() {
                text.push_str(&format!(
                    "--- the end of the test host's {title} ---\n{}\n",
                    tail.trim_end()
                ));
            }
        }
        match self.keep_logs() {
            Ok(folder) => {
                text.push_str(&format!("--- the test host's logs: {} ---", folder.display()));
            }
            Err(error) => text.push_str(&format!("--- the test host's logs are lost: {error} ---")),
        }
        text
    }

    fn keep_logs(&self) -> io::Result<PathBuf> {
        let folders = target_dir().join("lost-hosts");
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let own = self.folder.file_name().unwrap_or_default().display();
        let folder = folders.join(format!("{seconds}-{own}"));
        fs::create_dir_all(&folder)?;
        for file in [CONSOLE_LOG, EMULATOR_LOG, MONITOR_LOG] {
            match fs::copy(self.folder.join(file), folder.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        remove_oldest(&folders, LOGS_KEPT);
        Ok(folder)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Passes the channel and the monitor to the emulator under their numbers, and makes the emulator
/// end with this process.
fn give_descriptors(command: &mut Command, [channel, monitor]: [i32; 2]) {
    let parent = process::id();
    // SAFETY: the closure makes only calls that are safe between fork and exec, on open
    // descriptors.
    unsafe {
        command.pre_exec(move || {
            // First moved to spare numbers: each may have the target number of the other.
            let spare =
                [channel, monitor].map(|fd| libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, SPARE_FD));
            for (from, to) in spare.into_iter().zip([CHANNEL_FD, MONITOR_FD]) {
                if from < 0 || libc::dup2(from, to) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid().cast_unsigned() != parent {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(())
        });
    }
}

/// Starts a command from a thread that never ends: the kernel sends the parent's death signal when
/// the thread that started the child ends, not the process.
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

/// Removes the folders of processes that were killed before they could remove them.
fn remove_abandoned(folders: &Path) {
    for entry in fs::read_dir(folders).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let alive = name.split('-').next().is_some_and(|id| Path::new("/proc").join(id).exists());
        if !alive {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes all folders except the last `kept` by name.
fn remove_oldest(folders: &Path, kept: usize) {
    let entries = fs::read_dir(folders).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    all.sort();
    for folder in all.iter().rev().skip(kept) {
        let _ = fs::remove_dir_all(folder);
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

/// The kernel command line of the host.
///
/// * One processor at the start: the others come online when the kernel has patched its text.
/// * A soft lockup (20 s without a schedule) ends the host with the processors' backtraces, which
///   are warnings on its console. The emulator then exits instead of rebooting.
/// * A hung task does not end the host: tests freeze file systems on purpose.
const CMDLINE: &str = "console=ttyS0 loglevel=5 panic=-1 mitigations=off tsc=reliable maxcpus=1 \
    softlockup_panic=1 softlockup_all_cpu_backtrace=1 hung_task_panic=0";

fn setup(options: &HostOptions, image: &HostImage) -> Result<Setup, HostError> {
    let dir = env::current_dir().map_err(|e| prepare("finding the current directory", &e))?;
    let mut keep: Vec<String> = Vec::new();
    for folder in [
        workspace_dir(),
        target_dir(),
        guest_images::cache::Cache::project().root().to_owned(),
        dir,
    ] {
        let folder = folder.canonicalize().map_err(|e| prepare("resolving a folder", &e))?;
        let text = folder.display().to_string();
        // Only folders that the new /tmp would hide; /tmp itself cannot be both new and kept.
        if folder.starts_with("/tmp")
            && folder != Path::new("/tmp")
            && !keep.iter().any(|k| folder.starts_with(k))
        {
            keep.push(text);
        }
    }
    let results =
        options.results.canonicalize().map_err(|e| prepare("resolving the results folder", &e))?;
    Ok(Setup {
        keep,
        results: results.display().to_string(),
        modules: image.modules.display().to_string(),
    })
}

/// The emulated processor. Kernels would copy and clear memory by `rep movsb` and `rep stosb` if
/// they were fast (ERMS), but the emulator makes one pass of a loop for each byte. Without ERMS
/// they use words of eight bytes. Five-level page tables (LA57) only cost time.
pub(crate) const PROCESSOR: &str = "max,-la57,-erms";

fn arguments(
    options: &HostOptions,
    image: &HostImage,
    initrd: &Path,
    console: &Path,
) -> Vec<String> {
    let memory = options.memory_mib.to_string();
    let cpus = options.cpus.to_string();
    let kernel = image.kernel.display().to_string();
    let initrd = initrd.display().to_string();
    let console = format!("file,id=console,path={}", quoted(console));
    let results = quoted(&options.results);
    let channel = format!("socket,id=channel,fd={CHANNEL_FD}");
    let monitor = format!("socket,id=monitor,fd={MONITOR_FD}");
    let port = format!("virtserialport,chardev=channel,name={PORT_NAME}");
    let root = "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap".to_owned();
    let share = format!("local,id=results,path={results},security_model=none,multidevs=remap");
    [
        ["-machine", "q35"].map(str::to_owned).to_vec(),
        ["-accel", "tcg,thread=multi", "-cpu", PROCESSOR].map(str::to_owned).to_vec(),
        vec!["-m".into(), memory, "-smp".into(), cpus],
        ["-nodefaults", "-no-reboot", "-display", "none"].map(str::to_owned).to_vec(),
        vec!["-kernel".into(), kernel, "-initrd".into(), initrd, "-append".into(), CMDLINE.into()],
        vec!["-chardev".into(), console, "-serial".into(), "chardev:console".into()],
        vec!["-chardev".into(), monitor, "-mon".into(), "chardev=monitor,mode=control".into()],
        vec![
            "-device".into(),
            "virtio-serial-pci".into(),
            "-chardev".into(),
            channel,
            "-device".into(),
            port,
        ],
        vec![
            "-fsdev".into(),
            root,
            "-device".into(),
            "virtio-9p-pci,fsdev=root,mount_tag=hostroot".into(),
        ],
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

/// Escapes a path for the emulator's option lists, where a comma separates options.
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
    fn test_remove_oldest_leaves_the_last_folders() {
        let folders = env::temp_dir().join(format!("synthvm-oldest-{}", process::id()));
        for name in ["1-a", "2-b", "3-c"] {
            fs::create_dir_all(folders.join(name)).unwrap();
        }
        remove_oldest(&folders, 2);
        assert!(!folders.join("1-a").exists() && folders.join("2-b").exists());
        fs::remove_dir_all(&folders).unwrap();
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
