//! The variables as a CFI flash memory with the Intel command set, as far as firmware uses it (spec
//! hypervisor-platform section 12).
//!
//! Programming stores any value, as QEMU's flash does; real flash only clears bits.

#[cfg(test)]
mod tests;
mod variables;

pub use self::variables::{Variables, VariablesError};

/// Bytes that an erase command sets to FFh: the block that holds the addressed byte.
pub const FLASH_BLOCK: usize = 4096;

mod command {
    pub(super) const PROGRAM: [u8; 2] = [0x10, 0x40];
    pub(super) const ERASE: u8 = 0x20;
    pub(super) const CLEAR_STATUS: u8 = 0x50;
    pub(super) const READ_STATUS: u8 = 0x70;
    pub(super) const READ_ID: u8 = 0x90;
    pub(super) const CONFIRM: u8 = 0xD0;
}

/// Status bit: no operation is in progress.
const READY: u8 = 0x80;
/// Status bits: a command sequence was wrong.
const SEQUENCE_ERROR: u8 = 0x30;
/// Manufacturer and device of an Intel 28F640J5, as in QEMU.
const ID: [u8; 2] = [0x89, 0x18];

/// The flash memory. Offsets are bytes from its start.
#[derive(Debug)]
pub struct Flash {
    variables: Variables,
    mode: Mode,
    status: u8,
}

/// The meaning of the next access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Reads return the bytes, writes are commands.
    Array,
    /// Reads return the status, writes are commands.
    Status,
    /// Reads return the identity, writes are commands.
    Id,
    /// The next write is the data to program.
    Program,
    /// The next write confirms the erasure of the block at this offset.
    Erase(usize),
}

impl Flash {
    /// Returns a flash memory in array mode.
    #[must_use]
    pub fn new(variables: Variables) -> Flash {
        Flash { variables, mode: Mode::Array, status: 0 }
    }

    /// Returns the bytes and their file.
    #[must_use]
    pub fn variables(&self) -> &Variables {
        &self.variables
    }

    /// Returns whether the file of the bytes was written since the last call.
    pub fn take_written(&mut self) -> bool {
        self.variables.take_written()
    }

    /// Returns whether reads return the bytes: then a mapping of [`Variables::mapping`] can answer
    /// them.
    #[must_use]
    pub fn is_array(&self) -> bool {
        self.mode == Mode::Array
    }

    /// Restores array mode, as a reset of the machine does, and writes pending bytes to the file.
    pub fn reset(&mut self) {
        self.mode = Mode::Array;
        self.status = 0;
        self.variables.flush();
    }

    /// Reads `data` from `offset`. Bytes outside the flash read as all ones.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        match self.mode {
            Mode::Array => self.variables.read(offset, data),
            Mode::Status | Mode::Program | Mode::Erase(_) => data.fill(self.status),
            Mode::Id => data.iter_mut().zip(ID.into_iter().cycle()).for_each(|(to, id)| *to = id),
        }
    }

    /// Writes `data` at `offset`: a command, or its operand. Writes outside the flash are dropped.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let len = self.variables.len();
        let Some(offset) = usize::try_from(offset).ok().filter(|offset| *offset < len) else {
            return;
        };
        let Some(&value) = data.first() else { return };
        self.mode = match self.mode {
            Mode::Program => {
                self.variables.program(offset, data);
                self.status |= READY;
                Mode::Status
            }
            Mode::Erase(block) if value == command::CONFIRM => {
                self.variables.erase(block, FLASH_BLOCK);
                self.status |= READY;
                Mode::Status
            }
            Mode::Erase(_) => {
                self.status |= READY | SEQUENCE_ERROR;
                Mode::Status
            }
            Mode::Array | Mode::Status | Mode::Id => self.command(offset, value),
        };
        if self.mode == Mode::Array {
            self.variables.flush();
        }
    }

    fn command(&mut self, offset: usize, value: u8) -> Mode {
        match value {
            value if command::PROGRAM.contains(&value) => Mode::Program,
            command::ERASE => Mode::Erase(offset / FLASH_BLOCK * FLASH_BLOCK),
            command::READ_STATUS => Mode::Status,
            command::READ_ID => Mode::Id,
            command::CLEAR_STATUS => {
                self.status = 0;
                Mode::Array
            }
            // FFh, and commands that do not exist.
            _ => Mode::Array,
        }
    }
}
