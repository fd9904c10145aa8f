//! Process 1 of the test host: sets up a machine that resembles the outer one, but has a KVM, and
//! runs commands in it.
//!
//! The root is the outer machine's own, read-only, below a layer in memory that takes all writes.
//! Files to keep go to the results share.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{env, thread};

use guest_init::{modules, sys};
use guest_report::host::{Event, Frame, PORT_NAME, Request, Setup};

/// The largest piece of output in bytes. A screenful fits in one piece, and large output needs few
/// frames.
const OUTPUT_PIECE: usize = 64 << 10;

/// The interval and the number of checks for the port. The kernel creates it shortly after its
/// driver is loaded.
const PORT_LOOK: (Duration, u32) = (Duration::from_millis(20), 500);

/// Periodic APIC timers of guests tick at most 10 times a second. UEFI firmware asks for 100, and
/// writes CR8 at the end of each interrupt. If the next interrupt is pending then, the emulator
/// aborts: its emulation of CR8 raises a virtual interrupt without the lock that this requires.
const KVM_PARAMETERS: &str = "min_timer_period_us=100000";

fn main() {
    if let Err(error) = start().and_then(|(port, ready)| serve(&port, ready)) {
        eprintln!("host-init: {error}");
    }
    let error = sys::end(sys::Machine::PowerOff);
    eprintln!("host-init: power off: {error}");
}

type Port = Arc<Mutex<File>>;

fn start() -> io::Result<(Port, Event)> {
    sys::mount_new("devtmpfs", "/dev", "devtmpfs", 0, "")?;
    sys::mount_new("proc", "/proc", "proc", 0, "")?;
    sys::mount_new("sysfs", "/sys", "sysfs", 0, "")?;
    let mut failed = Vec::new();
    for name in modules::order() {
        let parameters = if name == "kvm" { KVM_PARAMETERS } else { "" };
        if let Err(error) = modules::load(&name, parameters) {
            failed.push(format!("module {name}: {error}"));
        }
    }
    let port = Arc::new(Mutex::new(open_port()?));
    let ready = match make_root() {
        Ok(()) => {
            let kvm = Path::new("/dev/kvm").exists();
            if !kvm {
                eprintln!("host-init: no /dev/kvm; {}", failed.join("; "));
            }
            Event::Ready { kernel: sys::kernel_release(), cpus: sys::cpus(), kvm }
        }
        Err(error) => {
            failed.insert(0, error.to_string());
            Event::Broken { why: failed.join("; ") }
        }
    };
    Ok((port, ready))
}

fn open_port() -> io::Result<File> {
    for _ in 0..PORT_LOOK.1 {
        for entry in fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
            if fs::read_to_string(entry.path().join("name"))
                .is_ok_and(|name| name.trim() == PORT_NAME)
            {
                let path = Path::new("/dev").join(entry.file_name());
                return File::options().read(true).write(true).open(path);
            }
        }
        thread::sleep(PORT_LOOK.0);
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("no port named {PORT_NAME}")))
}

/// Mounts the new root and changes to it.
fn make_root() -> io::Result<()> {
    let setup: Setup = serde_json::from_slice(&fs::read("/setup.json")?)?;
    sys::online_cpus()?;
    sys::loopback_up()?;
    sys::raise_open_files()?;
    let wire = "trans=virtio,version=9p2000.L,msize=512000";
    let read_only = libc::MS_RDONLY;
    sys::mount_new("hostroot", "/lower", "9p", read_only, &format!("{wire},cache=loose"))?;
    sys::mount_new("tmpfs", "/rw", "tmpfs", 0, "size=80%,mode=755")?;
    fs::create_dir_all("/rw/upper")?;
    fs::create_dir_all("/rw/work")?;
    sys::mount_new(
        "overlay",
        "/new",
        "overlay",
        0,
        "lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work",
    )?;
    for (kind, target, options) in [
        ("devtmpfs", "/new/dev", ""),
        ("devpts", "/new/dev/pts", "mode=620,ptmxmode=666"),
        ("tmpfs", "/new/dev/shm", "mode=1777,size=80%"),
        ("proc", "/new/proc", ""),
        ("sysfs", "/new/sys", ""),
        ("tmpfs", "/new/run", "mode=755"),
    ] {
        sys::mount_new(kind, target, kind, 0, options)?;
    }
    mount_tmp(&setup.keep)?;
    sys::mount_new(
        "results",
        &format!("/new{}", setup.results),
        "9p",
        0,
        &format!("{wire},cache=none"),
    )?;
    link_modules(&setup.modules)?;
    fs::write("/proc/sys/kernel/hostname", "test-host")?;
    sys::switch_root("/new")
}

/// Mounts a new `/tmp` in memory, in which only the folders to keep are visible.
fn mount_tmp(keep: &[String]) -> io::Result<()> {
    let mut kept = Vec::new();
    for folder in keep {
        kept.push((File::open(format!("/new{folder}"))?, folder));
    }
    sys::mount_new("tmpfs", "/new/tmp", "tmpfs", 0, "mode=1777,size=80%")?;
    for (file, folder) in kept {
        let behind = format!("/proc/self/fd/{}", file.as_raw_fd());
        sys::mount_new(&behind, &format!("/new{folder}"), "", libc::MS_BIND | libc::MS_REC, "")?;
    }
    Ok(())
}

/// Lets `modprobe` inside find the modules of the running kernel.
fn link_modules(modules: &str) -> io::Result<()> {
    fs::create_dir_all("/new/lib/modules")?;
    let link = format!("/new/lib/modules/{}", sys::kernel_release());
    if fs::symlink_metadata(&link).is_err() {
        std::os::unix::fs::symlink(modules, &link)?;
    }
    Ok(())
}

/// Runs commands until the other end closes the port.
fn serve(port: &Port, ready: Event) -> io::Result<()> {
    send(port, &Frame::Event(ready))?;
    let mut requests = locked(port).try_clone()?;
    while let Some(frame) = Frame::read(&mut requests)? {
        if let Frame::Request(request) = frame {
            let event = run(port, &request);
            send(port, &Frame::Event(event))?;
        }
    }
    Ok(())
}

fn locked(port: &Port) -> std::sync::MutexGuard<'_, File> {
    port.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send(port: &Port, frame: &Frame) -> io::Result<()> {
    frame.write(&mut *locked(port))
}

fn run(port: &Port, request: &Request) -> Event {
    let not_started = |error: &io::Error| Event::NotStarted {
        why: error.to_string(),
        not_found: error.kind() == io::ErrorKind::NotFound,
    };
    let Some((program, arguments)) = request.argv.split_first() else {
        return not_started(&io::ErrorKind::InvalidInput.into());
    };
    if let Err(error) = env::set_current_dir(PathBuf::from(&request.dir)) {
        return Event::NotStarted { why: format!("{}: {error}", request.dir), not_found: false };
    }
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(request.env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return not_started(&error),
    };
    let out = child.stdout.take().map(|pipe| relay(port, pipe, Frame::Stdout));
    let err = child.stderr.take().map(|pipe| relay(port, pipe, Frame::Stderr));
    let status = child.wait();
    // Processes that the command left behind would hold the pipes open.
    sys::kill_all_others();
    for thread in [out, err].into_iter().flatten() {
        let _ = thread.join();
    }
    sys::reap();
    match status {
        Ok(status) => Event::Exited { code: exit_code(status) },
        Err(error) => not_started(&error),
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn relay(
    port: &Port,
    mut pipe: impl Read + Send + 'static,
    frame: fn(Vec<u8>) -> Frame,
) -> thread::JoinHandle<()> {
    let port = Arc::clone(port);
    thread::spawn(move || {
        let mut piece = vec![0_u8; OUTPUT_PIECE];
        while let Ok(n) = pipe.read(&mut piece) {
            if n == 0 || send(&port, &frame(piece[..n].to_vec())).is_err() {
                return;
            }
        }
    })
}
