//! The registers of a CRB interface with one locality, as the guest's driver sees them
//! (docs/spec/firmware-windows.md section D7.1; TCG PC Client Platform TPM Profile).
//!
//! The model has no thread and makes no system call: a write returns the [`Action`] that the host
//! must perform. All registers are little-endian; all addresses are guest physical.

/// Guest physical address of the registers.
pub const BASE: u64 = 0xFED4_0000;
/// Bytes of the registers with the data buffer.
pub const SIZE: u64 = 0x1000;
/// Bytes of the data buffer, and so of the longest command or response.
pub const BUFFER_SIZE: usize = SIZE as usize - BUFFER;
/// Guest physical address of the control area, which the ACPI table TPM2 names.
pub const CONTROL_AREA: u64 = BASE + CTRL_REQ;

/// Bytes of the header of a command or a response: u16 tag, u32 size of the whole, u32 code,
/// big-endian.
pub const HEADER_SIZE: usize = 10;

const LOC_STATE: u64 = 0x00;
const LOC_CTRL: u64 = 0x08;
const LOC_STS: u64 = 0x0C;
const INTF_ID: u64 = 0x30;
const INTF_ID_VENDOR: u64 = 0x34;
const CTRL_REQ: u64 = 0x40;
const CTRL_STS: u64 = 0x44;
const CTRL_CANCEL: u64 = 0x48;
const CTRL_START: u64 = 0x4C;
const COMMAND_SIZE: u64 = 0x58;
const COMMAND_ADDRESS: u64 = 0x5C;
const RESPONSE_SIZE: u64 = 0x64;
const RESPONSE_ADDRESS: u64 = 0x68;
const BUFFER: usize = 0x80;

/// LOC_STATE: no dynamic root of trust was established.
const NOT_ESTABLISHED: u32 = 1;
const LOCALITY_ASSIGNED: u32 = 1 << 1;
const LOC_STATE_VALID: u32 = 1 << 7;
/// LOC_CTRL.
const REQUEST_ACCESS: u32 = 1;
const RELINQUISH: u32 = 1 << 1;
const RESET_ESTABLISHED: u32 = 1 << 3;
/// LOC_STS.
const GRANTED: u32 = 1;
/// CTRL_REQ.
const COMMAND_READY: u32 = 1;
const GO_IDLE: u32 = 1 << 1;
/// CTRL_STS.
const STS_ERROR: u32 = 1;
const STS_IDLE: u32 = 1 << 1;

/// INTF_ID: type CRB, version 1, no locality but 0, transfers of 64 bytes, CRB supported and
/// selected.
const INTERFACE: u32 = 1 | 1 << 4 | 3 << 11 | 1 << 14 | 1 << 17;
/// INTF_ID, upper half: PCI vendor id of IBM, which wrote the TPM in swtpm; device id 0.
const VENDOR: u32 = 0x1014;

/// Response of a command whose size is impossible: TPM_ST_NO_SESSIONS, 10 bytes,
/// TPM_RC_COMMAND_SIZE.
const WRONG_SIZE: [u8; HEADER_SIZE] = [0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x42];

/// A request of the guest's driver to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run this command, then call [`Registers::complete`] or [`Registers::fail`].
    Run(Vec<u8>),
    /// Cancel the command that runs.
    Cancel,
    /// Clear the flag that a dynamic root of trust was established.
    ResetEstablished,
}

/// The registers of one TPM.
#[derive(Clone, Debug)]
pub struct Registers {
    established: bool,
    assigned: bool,
    idle: bool,
    failed: bool,
    running: bool,
    cancel: bool,
    buffer: Box<[u8; BUFFER_SIZE]>,
}

impl Default for Registers {
    /// Returns the registers after power-on.
    fn default() -> Self {
        Registers {
            established: false,
            assigned: false,
            idle: true,
            failed: false,
            running: false,
            cancel: false,
            buffer: Box::new([0; BUFFER_SIZE]),
        }
    }
}

impl Registers {
    /// Resets the registers. A failed TPM stays failed; a running command is forgotten, so the
    /// host must not complete it.
    pub fn reset(&mut self) {
        *self = Registers {
            established: self.established,
            failed: self.failed,
            ..Registers::default()
        };
    }

    /// Returns whether a command runs.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// Returns whether the TPM has failed.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Sets whether the TPM reports an established dynamic root of trust.
    pub fn set_established(&mut self, established: bool) {
        self.established = established;
    }

    /// Ends the running command with this response. Without a running command, does nothing. A
    /// response longer than [`BUFFER_SIZE`] fails the TPM.
    pub fn complete(&mut self, response: &[u8]) {
        if !self.running {
            return;
        }
        match self.buffer.get_mut(..response.len()) {
            Some(place) => {
                place.copy_from_slice(response);
                self.running = false;
            }
            None => self.fail(),
        }
    }

    /// Fails the TPM: the error bit is set for ever, and no command runs.
    pub fn fail(&mut self) {
        self.failed = true;
        self.running = false;
    }

    /// Reads `data.len()` bytes at `offset`. Reserved registers and offsets past the end are 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        for (offset, byte) in (offset..).zip(data) {
            *byte = self.byte(offset);
        }
    }

    /// Writes at `offset`. Reserved and read-only registers, and the buffer while a command runs,
    /// ignore writes; bytes that an access leaves out of a register count as 0.
    #[must_use]
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Option<Action> {
        if let Some(start) = offset.checked_sub(BUFFER as u64) {
            self.write_buffer(start, data);
            return None;
        }
        // An access that is wider than a register writes one register after the other. Only the
        // last can start an action that matters: drivers write single registers.
        let mut action = None;
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let in_register = (at % 4) as usize;
            let (now, later) = rest.split_at(rest.len().min(4 - in_register));
            let mut value = [0; 4];
            value[in_register..in_register + now.len()].copy_from_slice(now);
            action = self.write_register(at - at % 4, u32::from_le_bytes(value)).or(action);
            at += now.len() as u64;
            rest = later;
        }
        action
    }

    fn byte(&self, offset: u64) -> u8 {
        if let Some(index) = offset.checked_sub(BUFFER as u64) {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            return self.buffer.get(index).copied().unwrap_or(0);
        }
        self.register(offset - offset % 4).to_le_bytes()[(offset % 4) as usize]
    }

    fn register(&self, offset: u64) -> u32 {
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        match offset {
            LOC_STATE => {
                LOC_STATE_VALID
                    | bit(!self.established, NOT_ESTABLISHED)
                    | bit(self.assigned, LOCALITY_ASSIGNED)
            }
            LOC_STS => bit(self.assigned, GRANTED),
            INTF_ID => INTERFACE,
            INTF_ID_VENDOR => VENDOR,
            CTRL_STS => bit(self.failed, STS_ERROR) | bit(self.idle, STS_IDLE),
            CTRL_CANCEL => self.cancel.into(),
            CTRL_START => self.running.into(),
            COMMAND_SIZE | RESPONSE_SIZE => BUFFER_SIZE as u32,
            COMMAND_ADDRESS | RESPONSE_ADDRESS => (BASE + BUFFER as u64) as u32,
            // LOC_CTRL and CTRL_REQ read as 0: each request is done at once. The upper halves of
            // the addresses are 0 too.
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) -> Option<Action> {
        match offset {
            LOC_CTRL => self.control_locality(value),
            CTRL_REQ => {
                // With both bits set, a TPM may do either.
                if value & COMMAND_READY != 0 {
                    self.idle = false;
                } else if value & GO_IDLE != 0 && !self.running {
                    self.idle = true;
                }
                None
            }
            CTRL_CANCEL => {
                let was = std::mem::replace(&mut self.cancel, value & 1 != 0);
                (self.cancel && !was && self.running).then_some(Action::Cancel)
            }
            CTRL_START if value & 1 != 0 => self.start(),
            _ => None,
        }
    }

    fn control_locality(&mut self, value: u32) -> Option<Action> {
        if value & REQUEST_ACCESS != 0 {
            self.assigned = true;
        }
        if value & RELINQUISH != 0 && !self.running {
            self.assigned = false;
        }
        (value & RESET_ESTABLISHED != 0 && self.assigned).then_some(Action::ResetEstablished)
    }

    /// Starts the command in the buffer. Like QEMU's, the device also takes one while it is idle.
    fn start(&mut self) -> Option<Action> {
        if !self.assigned || self.running || self.failed {
            return None;
        }
        self.running = true;
        let size =
            u32::from_be_bytes([self.buffer[2], self.buffer[3], self.buffer[4], self.buffer[5]]);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        match self.buffer.get(..size) {
            Some(command) if size >= HEADER_SIZE => Some(Action::Run(command.to_vec())),
            _ => {
                self.complete(&WRONG_SIZE);
                None
            }
        }
    }

    fn write_buffer(&mut self, start: u64, data: &[u8]) {
        if self.running {
            return;
        }
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let end = start.saturating_add(data.len());
        if let Some(place) = self.buffer.get_mut(start..end) {
            place.copy_from_slice(data);
        }
    }
}

#[cfg(test)]
mod tests;
