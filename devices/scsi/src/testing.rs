//! Random commands for tests, the same in each run.

use crate::Transfer;

/// A small generator of pseudo-random numbers (xorshift).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns a CDB with this operation code. Most bits of its fields are zero, as in valid CDBs.
    pub(crate) fn cdb(&mut self, opcode: u8) -> [u8; 16] {
        let mut bytes = [0; 16];
        for half in bytes.chunks_mut(8) {
            half.copy_from_slice(&(self.next() & self.next()).to_le_bytes());
        }
        bytes[0] = opcode;
        bytes
    }

    /// Returns a direction, with a buffer of less than 70,000 bytes.
    pub(crate) fn transfer(&mut self) -> Transfer {
        let room = (self.next() % 70_000) as u32;
        match self.next() % 3 {
            0 => Transfer::None,
            1 => Transfer::ToGuest(room),
            _ => Transfer::ToDisk(room),
        }
    }

    /// Returns a parameter list of this length.
    pub(crate) fn list(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| (self.next() & self.next()) as u8).collect()
    }
}
