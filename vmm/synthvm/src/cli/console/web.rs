//! The browser console.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use synthvm_web_console::{Libraries, LibrariesError, StartError, WebConsole};

use crate::cli::args::ConsoleArgs;
use crate::cli::exit::{Exit, Failure};
use crate::cli::target::Target;
use crate::config::VmConfig;
use crate::control::{ControlTarget, StopSignal, block_stop_signals, stop_signals};
use crate::web::{LocalMachine, RemoteMachine};

/// Milliseconds between two looks at whether the machine still runs.
const INTERVAL_MS: i32 = 2000;

/// Serves the console of a running machine until the machine ends or a signal arrives.
pub(super) fn serve(args: &ConsoleArgs, address: SocketAddr) -> Result<Exit, Failure> {
    let libraries = libraries(args.web_libraries.as_deref())?;
    let machine = Arc::new(RemoteMachine::connect(args.socket.clone())?);
    let internal = |error: io::Error| Failure::text(Exit::Internal, format!("console: {error}"));
    // Must precede the first thread, so that every thread inherits the mask.
    block_stop_signals().map_err(internal)?;
    let signals = stop_signals().map_err(internal)?;
    let web = WebConsole::start(address, libraries, Arc::clone(&machine) as _)
        .map_err(|error| refuse("--web", &error))?;
    let mut out = io::stdout().lock();
    let shown = writeln!(out, "{}", web.new_link().map_err(internal)?).and_then(|()| out.flush());
    shown.map_err(internal)?;
    loop {
        let mut poll = libc::pollfd { fd: signals.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live entry.
        if unsafe { libc::poll(&raw mut poll, 1, INTERVAL_MS) } > 0 {
            return match StopSignal::read(&signals).map_err(internal)?.number() {
                // Ctrl-C is the usual end.
                libc::SIGINT => Ok(Exit::Success),
                number => Ok(Exit::Signal(number)),
            };
        }
        if machine.state().is_err() {
            eprintln!("The machine has ended.");
            return Ok(Exit::Success);
        }
    }
}

/// Starts the console of this process's machine, and prints its link.
pub(in crate::cli) fn start_web(
    address: SocketAddr,
    config: &VmConfig,
    libraries: Libraries,
    target: &Arc<Target>,
) -> Result<(), Failure> {
    let control = config.control.as_deref().and_then(Path::file_stem);
    let name = control.map_or("SynthVM".into(), |name| name.to_string_lossy().into_owned());
    let target_of_web: Arc<dyn ControlTarget> = Arc::clone(target) as _;
    let machine = LocalMachine::new(name, Arc::downgrade(&target_of_web));
    let web = WebConsole::start(address, libraries, Arc::new(machine))
        .map_err(|error| refuse("--display web", &error))?;
    let link = web
        .new_link()
        .map_err(|error| Failure::text(Exit::Internal, format!("browser console: {error}")))?;
    // Standard output may be the guest's console.
    eprintln!("Console: {link}");
    target.set_web(web);
    Ok(())
}

/// Returns noVNC and xterm.js: those of the folder, or of this build.
pub(in crate::cli) fn libraries(folder: Option<&Path>) -> Result<Libraries, Failure> {
    let libraries = match folder {
        Some(folder) => Libraries::read(folder),
        None => Libraries::built_in(),
    };
    libraries.map_err(|error| {
        let hint = match error {
            LibrariesError::Absent => " (--web-libraries FOLDER)",
            _ => "",
        };
        Failure::text(Exit::Input, format!("browser console: {error}{hint}"))
    })
}

fn refuse(option: &str, error: &StartError) -> Failure {
    let exit = match error {
        StartError::NotLoopback(_) => Exit::Usage,
        StartError::Listen { .. } => Exit::Input,
        StartError::System(_) => Exit::Internal,
    };
    Failure::text(exit, format!("{option} {error}"))
}
