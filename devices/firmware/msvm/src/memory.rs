//! Access to guest memory at addresses that the guest gives. A range must be RAM from its first to
//! its last byte.

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// The guest's RAM.
pub(crate) type Memory = GuestMemoryMmap<()>;

/// A range outside RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotRam;

/// Returns `len` bytes at `address`. The caller limits `len`.
pub(crate) fn read(memory: &Memory, address: u64, len: usize) -> Result<Vec<u8>, NotRam> {
    // Checked first, so that a wrong address allocates nothing.
    check(memory, address, len)?;
    let mut bytes = vec![0; len];
    memory.read_slice(&mut bytes, GuestAddress(address)).map_err(|_| NotRam)?;
    Ok(bytes)
}

/// Returns `N` bytes at `address`.
pub(crate) fn read_array<const N: usize>(memory: &Memory, address: u64) -> Result<[u8; N], NotRam> {
    check(memory, address, N)?;
    let mut bytes = [0; N];
    memory.read_slice(&mut bytes, GuestAddress(address)).map_err(|_| NotRam)?;
    Ok(bytes)
}

/// Writes `bytes` at `address`, all or none.
pub(crate) fn write(memory: &Memory, address: u64, bytes: &[u8]) -> Result<(), NotRam> {
    check(memory, address, bytes.len())?;
    memory.write_slice(bytes, GuestAddress(address)).map_err(|_| NotRam)
}

fn check(memory: &Memory, address: u64, len: usize) -> Result<(), NotRam> {
    address.checked_add(len as u64).ok_or(NotRam)?;
    if memory.check_range(GuestAddress(address), len) { Ok(()) } else { Err(NotRam) }
}
