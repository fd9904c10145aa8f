//! The client of swtpm's control channel (docs/spec/firmware-windows.md section D7.2;
//! `tpm_ioctl.h` of swtpm).
//!
//! A message is a u32 command and its payload; the answer is a u32 result and its payload, all
//! big-endian. An answer with an error result has no payload, so the payload is only awaited after
//! the result.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::error::TpmError;

const GET_CAPABILITY: u32 = 0x01;
const INIT: u32 = 0x02;
const SHUTDOWN: u32 = 0x03;
const GET_ESTABLISHED: u32 = 0x04;
const SET_LOCALITY: u32 = 0x05;
const CANCEL: u32 = 0x09;
const RESET_ESTABLISHED: u32 = 0x0B;
const GET_STATE_BLOB: u32 = 0x0C;
const SET_STATE_BLOB: u32 = 0x0D;
const STOP: u32 = 0x0E;
const SET_DATA_FD: u32 = 0x10;
const SET_BUFFER_SIZE: u32 = 0x11;

/// Capability bits that the device needs, with the commands' names.
const NEEDED: [(u32, &str); 8] = [
    (0x1, "INIT"),
    (0x2, "SHUTDOWN"),
    (0x4, "GET_TPMESTABLISHED"),
    (0x8, "SET_LOCALITY"),
    (0x80, "RESET_TPMESTABLISHED"),
    (0x400, "STOP"),
    (0x1000, "SET_DATAFD"),
    (0x2000, "SET_BUFFERSIZE"),
];

/// INIT: a volatile state of an earlier run is deleted, as by a power cycle.
const DELETE_VOLATILE: u32 = 1;
/// State blobs: the blob is encrypted with swtpm's key.
const ENCRYPTED: u32 = 2;

/// GET_STATEBLOB: the TPM has stored no such part (TPM_RETRY).
const NOTHING_STORED: u32 = 0x800;

/// The longest state blob that is accepted. That of a full TPM is below 200 KiB.
pub(crate) const MAX_BLOB: usize = 1 << 20;

/// A part of a TPM's state, for saving and restoring a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum BlobKind {
    /// Seeds, hierarchies and NV indices.
    Permanent = 1,
    /// PCRs, sessions and other state that a power cycle clears.
    Volatile = 2,
    /// The state that TPM2_Shutdown(STATE) left of TPM 1.2.
    SaveState = 3,
}

/// The content of a part of a TPM's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateBlob {
    /// The bytes, which only swtpm interprets.
    pub data: Vec<u8>,
    /// Whether swtpm encrypted them.
    pub encrypted: bool,
}

/// The control channel.
#[derive(Debug)]
pub(crate) struct Control {
    stream: UnixStream,
    /// Whether the answer of a CANCEL has not been read.
    cancelling: bool,
}

impl Control {
    /// Takes a connected socket. `timeout` is the limit of each answer.
    pub(crate) fn new(stream: UnixStream, timeout: Duration) -> io::Result<Self> {
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Control { stream, cancelling: false })
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Checks that swtpm has all commands that the device needs.
    pub(crate) fn check_capabilities(&mut self) -> Result<(), TpmError> {
        let [capabilities] = self.ask("GET_CAPABILITY", GET_CAPABILITY, &[])?;
        match NEEDED.iter().find(|(bit, _)| capabilities & bit == 0) {
            None => Ok(()),
            Some((_, name)) => Err(TpmError::Lacks(name)),
        }
    }

    /// Passes the other end of the data channel.
    pub(crate) fn set_data_fd(&mut self, fd: &impl AsRawFd) -> Result<(), TpmError> {
        const NAME: &str = "SET_DATAFD";
        self.settle_cancel()?;
        let sent = self
            .stream
            .send_with_fd(&SET_DATA_FD.to_be_bytes()[..], fd.as_raw_fd())
            .map_err(|error| TpmError::of(NAME, error.into()))?;
        if sent != 4 {
            return Err(TpmError::of(NAME, io::ErrorKind::WriteZero.into()));
        }
        self.answer(NAME).map(|[]| ())
    }

    /// Sets the size of the longest command and response. Returns the size that swtpm chose.
    pub(crate) fn set_buffer_size(&mut self, wanted: u32) -> Result<u32, TpmError> {
        let [size, _, _] = self.ask("SET_BUFFERSIZE", SET_BUFFER_SIZE, &[wanted])?;
        Ok(size)
    }

    /// Powers the TPM on.
    pub(crate) fn init(&mut self, delete_volatile: bool) -> Result<(), TpmError> {
        let flags = if delete_volatile { DELETE_VOLATILE } else { 0 };
        self.ask("INIT", INIT, &[flags]).map(|[]| ())
    }

    /// Stops the TPM without ending swtpm.
    pub(crate) fn stop(&mut self) -> Result<(), TpmError> {
        self.ask("STOP", STOP, &[]).map(|[]| ())
    }

    /// Powers the TPM off.
    pub(crate) fn shutdown(&mut self) -> Result<(), TpmError> {
        self.ask("SHUTDOWN", SHUTDOWN, &[]).map(|[]| ())
    }

    /// Returns whether a dynamic root of trust was established.
    pub(crate) fn established(&mut self) -> Result<bool, TpmError> {
        let [bit] = self.ask("GET_TPMESTABLISHED", GET_ESTABLISHED, &[])?;
        Ok(bit.to_be_bytes()[0] != 0)
    }

    /// Clears the established flag, on behalf of this locality.
    pub(crate) fn reset_established(&mut self, locality: u8) -> Result<(), TpmError> {
        let payload = [u32::from_be_bytes([locality, 0, 0, 0])];
        self.ask("RESET_TPMESTABLISHED", RESET_ESTABLISHED, &payload).map(|[]| ())
    }

    /// Sets the locality of the commands that follow.
    pub(crate) fn set_locality(&mut self, locality: u8) -> Result<(), TpmError> {
        let payload = [u32::from_be_bytes([locality, 0, 0, 0])];
        self.ask("SET_LOCALITY", SET_LOCALITY, &payload).map(|[]| ())
    }

    /// Cancels the running command. Its answer may come only after that command's response, so
    /// the next message reads it.
    pub(crate) fn cancel(&mut self) -> Result<(), TpmError> {
        if !self.cancelling {
            self.send("CANCEL_TPM_CMD", CANCEL, &[])?;
            self.cancelling = true;
        }
        Ok(())
    }

    /// Waits for the answer of a CANCEL, so that it cannot apply to a later command.
    pub(crate) fn settle_cancel(&mut self) -> Result<(), TpmError> {
        if std::mem::take(&mut self.cancelling) {
            // That there was nothing to cancel is no error.
            self.result("CANCEL_TPM_CMD")?;
        }
        Ok(())
    }

    /// Returns a part of the TPM's state; empty if there is none.
    pub(crate) fn state_blob(&mut self, kind: BlobKind) -> Result<StateBlob, TpmError> {
        const NAME: &str = "GET_STATEBLOB";
        let [flags, total, length] = match self.ask(NAME, GET_STATE_BLOB, &[0, kind as u32, 0]) {
            Err(TpmError::Refused { code: NOTHING_STORED, .. }) => [0; 3],
            answer => answer?,
        };
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if size > MAX_BLOB || length != total {
            return Err(TpmError::Garbage(NAME));
        }
        let mut data = vec![0; size];
        self.read(NAME, &mut data)?;
        Ok(StateBlob { data, encrypted: flags & ENCRYPTED != 0 })
    }

    /// Sets a part of the TPM's state. The TPM must be stopped.
    pub(crate) fn set_state_blob(
        &mut self,
        kind: BlobKind,
        blob: &StateBlob,
    ) -> Result<(), TpmError> {
        const NAME: &str = "SET_STATEBLOB";
        if blob.data.len() > MAX_BLOB {
            return Err(TpmError::Garbage(NAME));
        }
        let flags = if blob.encrypted { ENCRYPTED } else { 0 };
        self.settle_cancel()?;
        self.send(NAME, SET_STATE_BLOB, &[flags, kind as u32, blob.data.len() as u32])?;
        self.stream.write_all(&blob.data).map_err(|error| TpmError::of(NAME, error))?;
        self.answer(NAME).map(|[]| ())
    }

    fn ask<const N: usize>(
        &mut self,
        name: &'static str,
        command: u32,
        payload: &[u32],
    ) -> Result<[u32; N], TpmError> {
        self.settle_cancel()?;
        self.send(name, command, payload)?;
        self.answer(name)
    }

    fn send(&mut self, name: &'static str, command: u32, payload: &[u32]) -> Result<(), TpmError> {
        let words = std::iter::once(&command).chain(payload);
        let bytes: Vec<u8> = words.flat_map(|word| word.to_be_bytes()).collect();
        self.stream.write_all(&bytes).map_err(|error| TpmError::of(name, error))
    }

    fn answer<const N: usize>(&mut self, name: &'static str) -> Result<[u32; N], TpmError> {
        match self.result(name)? {
            0 => {}
            code => return Err(TpmError::Refused { command: name, code }),
        }
        let mut words = [0; N];
        for word in &mut words {
            *word = self.word(name)?;
        }
        Ok(words)
    }

    fn result(&mut self, name: &'static str) -> Result<u32, TpmError> {
        self.word(name)
    }

    fn word(&mut self, name: &'static str) -> Result<u32, TpmError> {
        let mut bytes = [0; 4];
        self.read(name, &mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn read(&mut self, name: &'static str, bytes: &mut [u8]) -> Result<(), TpmError> {
        self.stream.read_exact(bytes).map_err(|error| TpmError::of(name, error))
    }
}
