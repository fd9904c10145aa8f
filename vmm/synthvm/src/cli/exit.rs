//! The program's exit status and its last message.

use std::fmt;
use std::process::{ExitCode, Termination};

use crate::config::{ConfigError, InputError};
use crate::control::{Cause, ClientError, StopReason};
use crate::doctor::HostError;

/// Exit statuses. docs/command-line.md and `synthvm --help` show the same table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The guest powered off; or another command succeeded.
    Success,
    /// SynthVM itself failed, or a running machine refused a request.
    Internal,
    /// The command line or the TOML file is wrong.
    Usage,
    /// The host lacks a required feature.
    Host,
    /// A named file cannot be used.
    Input,
    /// The guest panicked.
    GuestPanicked,
    /// The guest reset itself, with `--on-reset exit`.
    GuestReset,
    /// `synthvm control SOCK stop`, or Ctrl-A x on the console.
    Stopped,
    /// The guest did not do what a command asked for.
    Guest,
    /// Firmware found no system to boot, with `--on-no-boot-device exit`.
    NoBootDevice,
    /// The status of a program that a command ran.
    Command(u8),
    /// Stopped by this signal, because the guest did not power itself down.
    Signal(i32),
}

/// The table of exit statuses for `--help`.
pub(super) const TABLE: &str = "\
Exit status:
  0      the guest powered itself off (or: the command did what it was asked)
  1      SynthVM itself failed, or a running machine refused a request
  2      the command line or the TOML file is wrong
  3      the host lacks a required feature (see synthvm doctor)
  4      a named file cannot be used: kernel, initrd, disk, network, serial file, socket
  5      the guest panicked (with --on-panic exit)
  6      the guest reset itself (with --on-reset exit)
  7      stopped by `synthvm control SOCK stop`, or by Ctrl-A x on the console
  8      the guest has no driver for a command, refused it, or did not answer in time
  9      the firmware found no system to boot (with --on-no-boot-device exit)
  128+N  stopped by signal N, because the guest did not power itself down";

impl Exit {
    /// Every status that does not depend on a signal.
    pub const ALL: [Exit; 10] = [
        Exit::Success,
        Exit::Internal,
        Exit::Usage,
        Exit::Host,
        Exit::Input,
        Exit::GuestPanicked,
        Exit::GuestReset,
        Exit::Stopped,
        Exit::Guest,
        Exit::NoBootDevice,
    ];

    /// Returns the status that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Internal => 1,
            Exit::Usage => 2,
            Exit::Host => 3,
            Exit::Input => 4,
            Exit::GuestPanicked => 5,
            Exit::GuestReset => 6,
            Exit::Stopped => 7,
            Exit::Guest => 8,
            Exit::NoBootDevice => 9,
            Exit::Command(code) => code,
            Exit::Signal(number) => {
                u8::try_from(number).map_or(255, |number| number.saturating_add(128))
            }
        }
    }
}

impl From<StopReason> for Exit {
    fn from(reason: StopReason) -> Exit {
        match reason {
            StopReason::Requested => Exit::Stopped,
            StopReason::Signal(number) => Exit::Signal(number),
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

/// A failed command: one line for the user, and an exit status.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// Returns a failure whose line has the error and its whole chain of causes.
    pub fn new(exit: Exit, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Some errors already quote their cause.
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Failure { exit, message }
    }

    /// Returns a failure with the given text.
    pub fn text(exit: Exit, message: impl Into<String>) -> Self {
        Failure { exit, message: message.into() }
    }

    /// Returns the exit status.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Prints the failure on standard error.
    pub fn print(&self) {
        eprintln!("synthvm: {self}");
    }
}

impl fmt::Display for Failure {
    /// Writes one line, even if the message contains control characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.message.chars().map(|char| if char.is_control() { ' ' } else { char });
        f.write_str(line.collect::<String>().trim())
    }
}

/// Makes a failure of each error of one cause: the error's message, with this exit status.
macro_rules! failures {
    ($($error:ty => $exit:expr;)*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Failure::new($exit, &error)
            }
        }
    )*};
}

failures! {
    ConfigError => Exit::Usage;
    InputError => Exit::Input;
    HostError => Exit::Host;
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match error.cause() {
            Some(Cause::Guest) => Exit::Guest,
            None => Exit::Internal,
        };
        Failure::new(exit, &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_codes_are_those_of_the_table() {
        for exit in Exit::ALL {
            assert!(TABLE.contains(&format!("\n  {}  ", exit.code())), "{exit:?}");
        }
        assert_eq!((Exit::Signal(2).code(), Exit::Signal(15).code()), (130, 143));
    }

    #[test]
    fn test_failure_with_causes_is_one_line_that_repeats_nothing() {
        #[derive(Debug, thiserror::Error)]
        #[error("--disk a.img: cannot open")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("no\nsuch thing"));
        assert_eq!(
            Failure::new(Exit::Input, &error).to_string(),
            "--disk a.img: cannot open: no such thing"
        );
    }
}
