//! The machine of another process, behind its control socket.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use synthvm_web_console::{Action, Description, Machine};

use super::{description, request};
use crate::control::{Client, ClientError, Request};

/// The machine at a control socket, as the browser console sees it.
pub struct RemoteMachine {
    name: String,
    socket: PathBuf,
    /// The connection for the state. Actions that wait for files have connections of their own.
    states: Mutex<Option<Client>>,
}

impl RemoteMachine {
    /// Connects to the machine at a control socket.
    ///
    /// # Errors
    /// The errors of [`Client::connect`].
    pub fn connect(socket: PathBuf) -> Result<Self, ClientError> {
        let client = Client::connect(&socket)?;
        let name = socket.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(RemoteMachine { name, socket, states: Mutex::new(Some(client)) })
    }

    /// Returns the machine's state.
    ///
    /// # Errors
    /// The machine has ended, or does not answer.
    pub fn state(&self) -> Result<Description, ClientError> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let mut client = match states.take() {
            Some(client) => client,
            None => Client::connect(&self.socket)?,
        };
        let report = client.inspect()?;
        *states = Some(client);
        Ok(description(&self.name, &report))
    }

    fn open(&self, request: &Request) -> Result<UnixStream, String> {
        let client = Client::connect(&self.socket).map_err(|error| error.to_string())?;
        client.into_stream(request).map_err(|error| error.to_string())
    }
}

impl Machine for RemoteMachine {
    fn describe(&self) -> Result<Description, String> {
        self.state().map_err(|error| error.to_string())
    }

    fn perform(&self, action: &Action) -> Result<(), String> {
        let result = Client::connect(&self.socket).and_then(|mut client| {
            client.request(&request(action))?;
            Ok(())
        });
        result.map_err(|error| error.message().to_owned())
    }

    fn open_screen(&self) -> Result<UnixStream, String> {
        self.open(&Request::OpenScreen {})
    }

    fn open_serial(&self) -> Result<UnixStream, String> {
        self.open(&Request::OpenSerial { port: 1 })
    }
}
