//! The errors of opening a card's network.

use std::io;
use std::path::PathBuf;

use synthvm_net::tap::TapError;

/// A card whose network cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{card}: {error}")]
pub struct OpenError {
    /// The card's backend, as on the command line.
    pub card: String,
    /// The reason.
    pub error: NetworkError,
}

/// The reason why a card's network cannot be used, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The TAP interface cannot be opened.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A descriptor that was named is not open.
    #[error(
        "descriptor {0} is not open; pass it to synthvm, for example by `synthvm ... {0}<>...`"
    )]
    Descriptor(i32),
    /// The program passt does not exist.
    #[error(
        "there is no program `{0}`; install passt (`apt install passt`, `dnf install passt`), or \
         name it with passt=PATH"
    )]
    NoPasst(String),
    /// The program passt cannot be started.
    #[error("{0}")]
    Passt(#[source] io::Error),
    /// The socket to listen at exists already, or cannot be made.
    #[error(
        "cannot listen: {0}; if no machine listens there any more, remove the file, or choose \
         another path"
    )]
    Listen(#[source] io::Error),
    /// No machine listens at the socket.
    #[error("cannot connect: {0}; start the machine with listen= first")]
    Connect(#[source] io::Error),
    /// The capture file exists.
    #[error(
        "pcap={}: the file exists and is left alone; choose another name, or remove it",
        .0.display()
    )]
    CaptureExists(PathBuf),
    /// The capture file cannot be made.
    #[error("pcap={}: cannot create: {error}", .path.display())]
    Capture {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The card's MTU is larger than that of its backend.
    #[error("mtu={wanted} is more than the {limit} of the backend; {remedy}")]
    Mtu {
        /// The card's MTU.
        wanted: u32,
        /// The backend's MTU.
        limit: u32,
        /// How to have a larger one.
        remedy: String,
    },
    /// The system lacks descriptors, memory or threads.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl NetworkError {
    /// Returns whether the host lacks a feature, rather than the named object being unusable.
    pub fn is_of_host(&self) -> bool {
        matches!(
            self,
            NetworkError::NoPasst(_)
                | NetworkError::Passt(_)
                | NetworkError::System(_)
                | NetworkError::Tap(TapError::Device(_))
        )
    }
}
