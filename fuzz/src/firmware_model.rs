//! Naive models of fw_cfg transfers and of the flash.

use std::ops::Range;

const BLOCK: usize = 4096;

/// A transfer of fw_cfg.
pub(crate) struct Transfer {
    pub(crate) block: u64,
    pub(crate) address: u64,
    pub(crate) len: u64,
    pub(crate) is_read: bool,
}

impl Transfer {
    /// Checks the outcome, and returns the addresses that the transfer may have written.
    pub(crate) fn check(&self, is_ok: bool, in_ram: bool, is_write: bool) -> Vec<Range<u64>> {
        let control = self.block..self.block + 4;
        if !self.is_read {
            assert_eq!(is_ok, !is_write, "only a write is refused");
            return vec![control];
        }
        // An address of no bytes may be anywhere.
        assert!(!is_ok || in_ram || self.len == 0, "a transfer outside RAM succeeded");
        if !is_ok {
            return vec![control];
        }
        let end = self.address.saturating_add(self.len);
        let overlaps = self.address < self.block + 16 && self.block < end;
        assert!(!overlaps, "a transfer over its control block succeeded");
        vec![control, self.address..end]
    }
}

/// The flash, as a state and the bytes.
pub(crate) struct FlashModel {
    bytes: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Array,
    Other,
    Data,
    Confirm(usize),
}

impl FlashModel {
    pub(crate) fn new(bytes: Vec<u8>) -> FlashModel {
        FlashModel { bytes, state: State::Array }
    }

    pub(crate) fn is_array(&self) -> bool {
        self.state == State::Array
    }

    pub(crate) fn reset(&mut self) {
        self.state = State::Array;
    }

    /// Returns 8 bytes from `offset`, if reads return bytes.
    pub(crate) fn read(&self, offset: u64) -> Option<[u8; 8]> {
        let byte = |index: u64| {
            let at = offset.checked_add(index).and_then(|at| usize::try_from(at).ok());
            at.and_then(|at| self.bytes.get(at)).copied().unwrap_or(0xFF)
        };
        self.is_array().then(|| [0, 1, 2, 3, 4, 5, 6, 7].map(byte))
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        if offset >= self.bytes.len() as u64 {
            return;
        }
        let offset = offset as usize;
        self.state = match (self.state, data[0]) {
            (State::Data, _) => {
                for (byte, value) in self.bytes[offset..].iter_mut().zip(data) {
                    *byte = *value;
                }
                State::Other
            }
            (State::Confirm(block), 0xD0) => {
                self.bytes[block * BLOCK..(block + 1) * BLOCK].fill(0xFF);
                State::Other
            }
            (State::Confirm(_), _) | (_, 0x70 | 0x90) => State::Other,
            (_, 0x10 | 0x40) => State::Data,
            (_, 0x20) => State::Confirm(offset / BLOCK),
            _ => State::Array,
        };
    }
}
