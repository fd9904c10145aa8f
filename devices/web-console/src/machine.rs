//! The machine behind the console, as the console sees it.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A machine that the console shows. The methods are called on the threads of connections, and may
/// wait.
pub trait Machine: Send + Sync {
    /// Returns the state of the machine, for the page.
    ///
    /// # Errors
    /// The machine has ended, or does not answer.
    fn describe(&self) -> Result<Description, String>;

    /// Does what a button of the page asks for.
    ///
    /// # Errors
    /// Returns the cause, for the user.
    fn perform(&self, action: &Action) -> Result<(), String>;

    /// Returns a stream to the screen: RFB, as a viewer that needs no password.
    ///
    /// # Errors
    /// The machine has no display, or has too many viewers.
    fn open_screen(&self) -> Result<UnixStream, String>;

    /// Returns a stream to the first serial port.
    ///
    /// # Errors
    /// The port has too many clients.
    fn open_serial(&self) -> Result<UnixStream, String>;
}

/// The state of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Description {
    /// The name in the page's title.
    pub name: String,
    /// A word: `running`, `paused` and so on.
    pub state: String,
    /// Whether there is a screen.
    pub screen: bool,
    /// The actions that the machine offers, by [`Action::name`].
    pub actions: Vec<&'static str>,
    /// The DVD drives.
    pub drives: Vec<Drive>,
}

/// A DVD drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drive {
    /// The id, for [`Action::InsertDisc`] and [`Action::EjectDisc`].
    pub id: String,
    /// The disc in it; `None`: empty.
    pub disc: Option<String>,
}

/// The actions of the page's buttons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// Press the power button.
    PowerButton {},
    /// Start the guest again.
    Reset {},
    /// Stop the machine without asking the guest.
    Stop {},
    /// Stop the vCPUs.
    Pause {},
    /// Let the vCPUs run again.
    Resume {},
    /// Press and release combinations of keys.
    SendKeys {
        /// The combinations, as in `synthvm send-keys`.
        keys: String,
    },
    /// Type a text on a US keyboard, as a whole or not at all.
    TypeText {
        /// The text.
        text: String,
    },
    /// Insert a disc into a drive.
    InsertDisc {
        /// The drive's id.
        drive: String,
        /// The path of the image on the machine's host; absolute.
        path: PathBuf,
    },
    /// Eject the disc of a drive.
    EjectDisc {
        /// The drive's id.
        drive: String,
        /// Whether to eject even if the guest has locked the tray.
        #[serde(default)]
        force: bool,
    },
}

impl Action {
    /// Returns the name, as in a message of the page.
    pub fn name(&self) -> &'static str {
        match self {
            Action::PowerButton {} => "power-button",
            Action::Reset {} => "reset",
            Action::Stop {} => "stop",
            Action::Pause {} => "pause",
            Action::Resume {} => "resume",
            Action::SendKeys { .. } => "send-keys",
            Action::TypeText { .. } => "type-text",
            Action::InsertDisc { .. } => "insert-disc",
            Action::EjectDisc { .. } => "eject-disc",
        }
    }
}
