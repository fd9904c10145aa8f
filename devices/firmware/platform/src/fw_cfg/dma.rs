//! Transfers: the guest writes a control block to its memory, and its address to a register.

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::FwCfg;

/// The control block, big-endian: u32 control, u32 length, u64 address of the data.
const BLOCK_BYTES: u64 = 16;

/// In `control` after the transfer: it failed.
const ERROR: u32 = 1;
const READ: u32 = 1 << 1;
const SKIP: u32 = 1 << 2;
/// The upper 16 bits of `control` are a key to select first.
const SELECT: u32 = 1 << 3;
const WRITE: u32 = 1 << 4;

/// Zeros that a transfer may read behind the end of an item. Firmware reads items of fixed size
/// that may be absent; a longer transfer is a mistake of the guest and would only hold up its vCPU.
const MAX_PADDING: u64 = 4096;
/// Bytes that are copied at a time.
const CHUNK: usize = 64 << 10;

/// A transfer that was refused.
struct Refused;

impl FwCfg {
    /// Performs the transfer whose control block is at `address`, and writes its outcome there. A
    /// block outside RAM is ignored, because there is no place for an outcome.
    pub(super) fn transfer(&mut self, memory: &GuestMemoryMmap<()>, address: u64) {
        let mut block = [0; BLOCK_BYTES as usize];
        if !is_ram(memory, address, BLOCK_BYTES)
            || memory.read_slice(&mut block, GuestAddress(address)).is_err()
        {
            return;
        }
        let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| block[at + byte]));
        let (control, len) = (word(0), u64::from(word(4)));
        let data = u64::from(word(8)) << 32 | u64::from(word(12));
        if control & SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let outcome = if control & READ != 0 {
            self.read_into(memory, data, len, address)
        } else if control & WRITE != 0 {
            // No item is writable.
            Err(Refused)
        } else {
            if control & SKIP != 0 {
                self.offset = self.offset.saturating_add(len);
            }
            Ok(())
        };
        let control = if outcome.is_ok() { 0 } else { ERROR };
        // The block was read from the same place.
        let _ = memory.write_obj(control.to_be(), GuestAddress(address));
    }

    /// Copies `len` bytes of the selected item to guest memory at `data`. The range must be RAM and
    /// apart from the control block at `block`; bytes behind the item's end are zeros.
    fn read_into(
        &mut self,
        memory: &GuestMemoryMmap<()>,
        data: u64,
        len: u64,
        block: u64,
    ) -> Result<(), Refused> {
        let item = self.items.get(&self.selected);
        let rest = item.map_or(0, |item| item.len().saturating_sub(self.offset));
        let overlaps = data < block + BLOCK_BYTES && block < data.saturating_add(len);
        if len > rest + MAX_PADDING || overlaps || !is_ram(memory, data, len) {
            return Err(Refused);
        }
        let mut buffer = vec![0; CHUNK.min(len as usize)];
        let mut done = 0;
        while done < len {
            let bytes = &mut buffer[..CHUNK.min((len - done) as usize)];
            let present = rest.saturating_sub(done).min(bytes.len() as u64) as usize;
            bytes[present..].fill(0);
            if let Some(item) = item.filter(|_| present > 0) {
                item.read(self.offset, &mut bytes[..present]).map_err(|_| Refused)?;
            }
            memory.write_slice(bytes, GuestAddress(data + done)).map_err(|_| Refused)?;
            self.offset += present as u64;
            done += bytes.len() as u64;
        }
        Ok(())
    }
}

/// Returns whether `len` bytes from `address` are RAM. `write_slice` alone would write the part
/// before a hole.
fn is_ram(memory: &GuestMemoryMmap<()>, address: u64, len: u64) -> bool {
    usize::try_from(len).is_ok_and(|len| memory.check_range(GuestAddress(address), len))
        && address.checked_add(len).is_some()
}
