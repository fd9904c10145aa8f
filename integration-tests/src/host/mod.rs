//! The test host: runs a command on a KVM with Hyper-V support.
//!
//! If `synthvm doctor` reports that stock guests can run, the host is this machine. Otherwise it is
//! a machine emulated in software, whose kernel offers a complete `/dev/kvm`. Inside, the command
//! sees the outer machine's files (writes stay in memory and are lost), the same environment and
//! the same current directory. Files to keep must be in `$SYNTHVM_RESULTS`.
//!
//! A failed start is repeated, and is never reported as a failed command: see [`HostError`].

mod emulated;
mod emulator;
mod image;
mod monitor;
mod output;
mod silence;

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use guest_images::Kernel;
use guest_images::cache::target_dir;

pub use emulated::EmulatedHost;
pub(crate) use emulator::PROCESSOR;
pub use image::emulator;

/// Number of attempts to start a host.
pub const START_ATTEMPTS: u32 = 3;

/// Timeout of a host's start. 6 to 10 seconds are usual.
pub const START_DEADLINE: Duration = Duration::from_secs(120);

/// Set inside a test host, so that no second one is started there.
pub const INSIDE: &str = "SYNTHVM_TEST_HOST";

/// The value of [`INSIDE`] in an emulated host.
const EMULATED: &str = "emulated";

/// Returns whether this is an emulated test host.
pub fn is_emulated() -> bool {
    std::env::var_os(INSIDE).is_some_and(|place| place == EMULATED)
}

/// The variable with the path, equal inside and outside, of the folder whose files outlive an
/// emulated host.
pub const RESULTS: &str = "SYNTHVM_RESULTS";

/// Returns the folder whose files outlive an emulated host.
pub fn results() -> PathBuf {
    std::env::var_os(RESULTS).map_or_else(|| HostOptions::default().results, PathBuf::from)
}

/// The options for running a command.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// The host.
    pub place: Place,
    /// Memory of an emulated host, in MiB.
    pub memory_mib: u32,
    /// Number of processors of an emulated host. The default is one: software emulation of several
    /// has races (a kernel that patches its own text, a nested guest that stops), which lose
    /// machines.
    pub cpus: u32,
    /// A command that writes nothing for this time counts as hung.
    pub quiet_limit: Duration,
    /// Silence of the command after which an emulated host's processors are examined twice. One
    /// line about them goes to the command's standard error, their registers to the host's logs.
    pub look_after: Duration,
    /// The folder that `$SYNTHVM_RESULTS` names.
    pub results: PathBuf,
    /// The kernel of an emulated host.
    pub kernel: HostKernel,
}

/// The kernel of an emulated host. It must have KVM for AMD, which the distribution's cloud kernels
/// lack.
#[derive(Debug, Clone)]
pub enum HostKernel {
    /// The full flavour of a suite of the distribution.
    Suite(String),
    /// A kernel of the caller.
    Named(Kernel),
}

/// The host of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// This machine if its KVM suffices, otherwise an emulated one.
    Auto,
    /// This machine.
    Here,
    /// An emulated machine.
    Emulated,
}

impl Default for HostOptions {
    fn default() -> Self {
        HostOptions {
            place: Place::Auto,
            memory_mib: 8192,
            cpus: 1,
            quiet_limit: Duration::from_secs(600),
            look_after: Duration::from_secs(60),
            results: target_dir().join("host-results"),
            kernel: HostKernel::Suite("bookworm".to_owned()),
        }
    }
}

/// The reason for a missing exit status. Only [`HostError::Hung`] is about the command itself.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The parts of an emulated host are not available.
    #[error("the test host cannot be made: {0}")]
    Prepare(String),
    /// The host did not become ready, in all attempts.
    #[error("the test host did not start in {attempts} attempts: {why}\n{console}")]
    NotStarted {
        /// Number of attempts.
        attempts: u32,
        /// The reason of the last failure.
        why: String,
        /// The end of the console in the last attempt.
        console: String,
    },
    /// The host ended while the command ran.
    #[error("the test host died while the command ran: {why}\n{console}")]
    Died {
        /// The observation.
        why: String,
        /// The end of the host's console.
        console: String,
    },
    /// The command wrote nothing for too long, and was killed with its host.
    #[error("the command wrote nothing for {seconds} s and was killed: {why}\n{console}")]
    Hung {
        /// The exceeded limit in seconds.
        seconds: u64,
        /// The host's activity in that time.
        why: String,
        /// The end of the host's console.
        console: String,
    },
    /// The command does not exist or cannot be run.
    #[error("the command could not be run: {why}")]
    Command {
        /// The system's message.
        why: String,
        /// Whether the program does not exist.
        not_found: bool,
    },
}

impl HostError {
    /// Returns the reason for the loss of the host, in one line, if it is lost. If so, nothing is
    /// known about the command.
    pub fn loss(&self) -> Option<String> {
        match self {
            HostError::Hung { seconds, why, .. } => Some(format!("silent for {seconds} s: {why}")),
            HostError::Died { why, .. } => Some(why.clone()),
            _ => None,
        }
    }

    /// Returns the exit status of `cargo xtask host`: 124 for a hung command, 125 for a failed
    /// host, 126 and 127 as in a shell.
    pub fn exit_code(&self) -> u8 {
        match self {
            HostError::Hung { .. } => 124,
            HostError::Prepare(_) | HostError::NotStarted { .. } | HostError::Died { .. } => 125,
            HostError::Command { not_found: false, .. } => 126,
            HostError::Command { not_found: true, .. } => 127,
        }
    }
}

fn prepare(doing: &str, error: &io::Error) -> HostError {
    HostError::Prepare(format!("{doing}: {error}"))
}

/// Runs one command and returns its exit status (128 + the signal that ended it). Its output goes
/// to this process's output as it arrives.
pub fn run(argv: &[String], options: &HostOptions) -> Result<i32, HostError> {
    run_with(argv, options, &mut output::PassThrough)
}

/// Runs a command like [`run`], but sends the output to `sink`.
pub fn run_with(
    argv: &[String],
    options: &HostOptions,
    sink: &mut dyn OutputSink,
) -> Result<i32, HostError> {
    std::fs::create_dir_all(&options.results)
        .map_err(|e| HostError::Prepare(format!("making {}: {e}", options.results.display())))?;
    let emulated = match options.place {
        Place::Here => false,
        Place::Emulated => true,
        Place::Auto => !is_usable_here(),
    };
    if emulated {
        EmulatedHost::start(options)?.run(argv, &[], sink)
    } else {
        output::run_here(argv, options, sink)
    }
}

/// A receiver of a command's output as it arrives.
pub trait OutputSink: Send {
    /// Receives bytes of standard output.
    fn stdout(&mut self, bytes: &[u8]);
    /// Receives bytes of standard error.
    fn stderr(&mut self, bytes: &[u8]);
}

/// Returns whether `synthvm doctor` reports that stock guests can run on this machine, or this is
/// already a test host.
///
/// Returns false if the program has not been built, or prints no table.
pub fn is_usable_here() -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    ["release", "debug"].iter().any(|profile| {
        let program = target_dir().join(profile).join("synthvm");
        let output = Command::new(program).arg("doctor").stdin(Stdio::null()).output();
        output.is_ok_and(|o| o.status.success() && !o.stdout.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_exit_codes_tell_the_hosts_faults_from_the_commands() {
        let (why, console) = (String::new, String::new);
        let host = [
            HostError::Prepare(why()),
            HostError::NotStarted { attempts: 3, why: why(), console: console() },
            HostError::Died { why: why(), console: console() },
        ];
        assert!(host.iter().all(|error| error.exit_code() == 125));
        assert_eq!(HostError::Hung { seconds: 1, why: why(), console: console() }.exit_code(), 124);
        assert_eq!(HostError::Command { why: why(), not_found: false }.exit_code(), 126);
        assert_eq!(HostError::Command { why: why(), not_found: true }.exit_code(), 127);
    }
}
