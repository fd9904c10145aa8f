//! The test host: runs a command where KVM has Hyper-V support.
//!
//! That is right here when `synthvm doctor` says that stock guests run here. Else it is a machine
//! emulated in software whose own kernel offers a complete `/dev/kvm`. Inside, the command sees the
//! outside machine's files (writes stay in memory and vanish), the same environment and the same
//! current directory; what shall stay goes to `$SYNTHVM_RESULTS`.
//!
//! A host that does not start is tried again and is never taken for a failed command: see
//! [`HostError`].

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
pub use image::emulator;

/// How many times a host that does not start is tried.
pub const START_ATTEMPTS: u32 = 3;

/// How long a host may take to be ready. Usual are 6 to 10 seconds.
pub const START_DEADLINE: Duration = Duration::from_secs(120);

/// Set inside a test host, so that nobody starts a second one in it.
pub const INSIDE: &str = "SYNTHVM_TEST_HOST";

/// What [`INSIDE`] says in an emulated host.
const EMULATED: &str = "emulated";

/// True in an emulated test host.
pub fn is_emulated() -> bool {
    std::env::var_os(INSIDE).is_some_and(|place| place == EMULATED)
}

/// Names the folder, the same inside and outside, where files outlive an emulated host.
pub const RESULTS: &str = "SYNTHVM_RESULTS";

/// How to run a command.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Where to run it.
    pub place: Place,
    /// Memory of an emulated host, in MiB.
    pub memory_mib: u32,
    /// Processors of an emulated host. One is the default: software emulation of several has races
    /// (a kernel that patches its own text, a nested guest that stops), so that machines are lost.
    pub cpus: u32,
    /// A command that writes nothing for so long is taken for hung.
    pub quiet_limit: Duration,
    /// After so long a silence of its command, an emulated host's processors are looked at twice.
    /// What they do is one line of the command's standard error; registers go to the host's logs.
    pub look_after: Duration,
    /// The folder that `$SYNTHVM_RESULTS` names.
    pub results: PathBuf,
    /// The kernel that an emulated host runs.
    pub kernel: HostKernel,
}

/// The kernel of an emulated host. It must have KVM for AMD, which the distribution's cloud flavour
/// has not.
#[derive(Debug, Clone)]
pub enum HostKernel {
    /// The full flavour of a suite of the distribution.
    Suite(String),
    /// One that the caller has.
    Named(Kernel),
}

/// Where to run a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Here if this machine's KVM will do, else emulated.
    Auto,
    /// Here.
    Here,
    /// In an emulated machine.
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

/// Why a command has no exit status. None of these says anything about the command itself, except
/// [`HostError::Hung`].
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// What an emulated host is made of could not be had.
    #[error("the test host cannot be made: {0}")]
    Prepare(String),
    /// It did not become ready, in all attempts.
    #[error("the test host did not start in {attempts} attempts: {why}\n{console}")]
    NotStarted {
        /// How often it was tried.
        attempts: u32,
        /// What happened to the last.
        why: String,
        /// The end of the last one's console.
        console: String,
    },
    /// The host went away under the command.
    #[error("the test host died while the command ran: {why}\n{console}")]
    Died {
        /// What was seen.
        why: String,
        /// The end of its console.
        console: String,
    },
    /// The command wrote nothing for too long, and was killed together with its host.
    #[error("the command wrote nothing for {seconds} s and was killed: {why}\n{console}")]
    Hung {
        /// The limit that was passed.
        seconds: u64,
        /// What the host did meanwhile.
        why: String,
        /// The end of the host's console.
        console: String,
    },
    /// The command does not exist or cannot be run.
    #[error("the command could not be run: {why}")]
    Command {
        /// What the system said.
        why: String,
        /// True when there is no such program.
        not_found: bool,
    },
}

impl HostError {
    /// Why the host is lost, in one line, if it is: then nothing is known about the command.
    pub fn loss(&self) -> Option<String> {
        match self {
            HostError::Hung { seconds, why, .. } => Some(format!("silent for {seconds} s: {why}")),
            HostError::Died { why, .. } => Some(why.clone()),
            _ => None,
        }
    }

    /// The exit status by which `cargo xtask host` tells these from a command's own: 124 hung, 125
    /// the host's fault, 126 and 127 as a shell has them.
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
/// to ours as it comes.
pub fn run(argv: &[String], options: &HostOptions) -> Result<i32, HostError> {
    run_with(argv, options, &mut output::PassThrough)
}

/// As [`run`], with the output given to `sink`.
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

/// Takes a command's output as it comes.
pub trait OutputSink: Send {
    /// Bytes of its standard output.
    fn stdout(&mut self, bytes: &[u8]);
    /// Bytes of its standard error.
    fn stderr(&mut self, bytes: &[u8]);
}

/// True when `synthvm doctor` says that stock guests run on this machine, or when this is a test
/// host already.
///
/// A program that is not built yet cannot say so, and neither can one that prints no table.
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
