//! Process 1 of test guests: loads modules, runs named checks or handles requests, and reports JSON
//! lines.
//!
//! The console stays quiet: under emulation each of its characters is an exit. Reports go to the
//! report port.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs};

use guest_init::cmdline::CommandLine;
use guest_init::port::{self, Port};
use guest_init::{agent, memory_load, modules, power_button, sys, traffic};
use guest_report::agent::Event;

fn main() -> ExitCode {
    let mut arguments = env::args();
    let name = arguments.next().unwrap_or_default();
    // The kernel requests modules by calling this program under this name.
    if Path::new(&name).ends_with("modprobe") {
        return modprobe(arguments);
    }
    if Path::new(&name).ends_with("traffic") {
        return program(traffic::run(&arguments.collect::<Vec<_>>()));
    }
    if Path::new(&name).ends_with("memory-load") {
        return program(memory_load::run(&arguments.collect::<Vec<_>>()));
    }
    if std::process::id() != 1 {
        eprintln!("guest-init is process 1 of a test guest, and nothing else");
        return ExitCode::FAILURE;
    }
    if let Err(error) = run() {
        eprintln!("guest-init: {error}");
    }
    let error = sys::end(sys::Machine::PowerOff);
    eprintln!("guest-init: power off: {error}");
    ExitCode::FAILURE
}

/// Loads the named modules that the image contains; the kernel's options `-q --` are ignored.
fn modprobe(arguments: impl Iterator<Item = String>) -> ExitCode {
    let mut result = ExitCode::SUCCESS;
    for name in arguments.filter(|argument| !argument.starts_with('-')) {
        // Aliases such as `fs-ext4` have the module's name after a dash.
        let name = name.strip_prefix("fs-").unwrap_or(&name);
        if modules::load(name, "").is_err() {
            result = ExitCode::FAILURE;
        }
    }
    result
}

/// Prints the result of a program.
fn program(result: Result<String, String>) -> ExitCode {
    match result {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    mount_all().map_err(|e| e.to_string())?;
    let line = sys::cmdline();
    let wanted = CommandLine::parse(&line);
    for word in &wanted.unknown {
        eprintln!("guest-init: unknown word synthvm.{word}");
    }
    let at_boot = wanted.modules.clone().unwrap_or_else(modules::at_boot);
    let modules_failed: Vec<String> = at_boot
        .iter()
        .filter_map(|name| modules::load(name, "").err().map(|error| format!("{name}: {error}")))
        .collect();
    if let Err(error) = power_button::watch() {
        eprintln!("guest-init: the power button: {error}");
    }
    let path = wanted.report.as_deref().unwrap_or(port::DEFAULT);
    let port = match Port::open(path) {
        Ok(port) => Some(port),
        // A user at the console needs no report.
        Err(_) if wanted.shell => None,
        Err(error) => return Err(format!("the report port {path}: {error}")),
    };
    if let Some(port) = &port {
        port.send(&ready(line, modules_failed)).map_err(|e| e.to_string())?;
        agent::run_checks(port, &wanted.checks)
            .and_then(|()| if wanted.agent { agent::serve(port) } else { Ok(()) })?;
        port.drain();
    }
    if wanted.shell || (wanted.checks.is_empty() && !wanted.agent) { shell() } else { Ok(()) }
}

fn ready(cmdline: String, modules_failed: Vec<String>) -> Event {
    Event::Ready {
        kernel: sys::kernel_release(),
        cpus: sys::cpus(),
        clocksource: sys::clocksource(),
        cmdline,
        uptime_s: sys::uptime(),
        modules_failed,
    }
}

fn mount_all() -> std::io::Result<()> {
    for (kind, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("devpts", "/dev/pts"),
        ("tmpfs", "/dev/shm"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
    ] {
        sys::mount_new(kind, target, kind, 0, "")?;
    }
    fs::write("/proc/sys/kernel/hostname", "guest")
}

/// Runs a shell for a user on the console, until the user leaves it.
fn shell() -> Result<(), String> {
    println!("SynthVM test guest, Linux {}. Leave the shell to power off.", sys::kernel_release());
    // A session with its own terminal, so that keys for interrupts work.
    let mut setsid = Command::new("/bin/busybox");
    setsid
        .args(["setsid", "-c", "/bin/busybox", "sh", "-l"])
        .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
        .env("HOME", "/");
    setsid
        .status()
        .map(|_| ())
        .map_err(|e| format!("/bin/busybox: {e} (was the image built with a shell?)"))
}
