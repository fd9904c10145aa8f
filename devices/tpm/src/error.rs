//! The errors of swtpm and of its state's folder.

use std::io;

use crate::folder::StateError;
use crate::registers::BUFFER_SIZE;

/// An error of swtpm.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// The state's folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The program does not exist.
    #[error(
        "there is no program `{0}`; install swtpm (`apt install swtpm`, `dnf install swtpm`), or \
         name it with program=PATH"
    )]
    NoProgram(String),
    /// The program cannot be started.
    #[error("cannot start `{program}`: {error}; name another one with program=PATH")]
    Start {
        /// The program.
        program: String,
        /// The system's error.
        error: io::Error,
    },
    /// The program lacks a command.
    #[error("swtpm has no command {0}; install version 0.7 or later")]
    Lacks(&'static str),
    /// The program's buffer does not have the size of the registers'.
    #[error("swtpm has a buffer of {0} bytes, the TPM's registers one of {BUFFER_SIZE}")]
    Buffer(u32),
    /// The program refused a command.
    #[error("swtpm refused {command} with error {code:#x}")]
    Refused {
        /// The command of the control channel.
        command: &'static str,
        /// The TPM's or swtpm's result.
        code: u32,
    },
    /// The program answered what is no answer.
    #[error("swtpm's answer to {0} is malformed")]
    Garbage(&'static str),
    /// The program does not answer.
    #[error("swtpm did not answer {0} in time")]
    Silent(&'static str),
    /// The program has ended, or closed its sockets.
    #[error("swtpm ended during {0}")]
    Ended(&'static str),
    /// The system lacks descriptors or memory.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

impl TpmError {
    /// Returns the meaning of an I/O error during this command.
    pub(crate) fn of(command: &'static str, error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::UnexpectedEof | Kind::BrokenPipe | Kind::ConnectionReset => Self::Ended(command),
            Kind::WouldBlock | Kind::TimedOut => Self::Silent(command),
            _ => Self::System(command, error),
        }
    }

    /// Returns whether the host lacks a feature, rather than the state's folder being unusable.
    pub fn is_of_host(&self) -> bool {
        !matches!(self, TpmError::State(_))
    }
}
