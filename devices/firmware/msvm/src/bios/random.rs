//! Random numbers for the guest: {u32 5, u64 status, u64 address, u32 bytes}.

use super::Random;
use crate::fields::{le32, le64};
use crate::memory::{self, Memory};
use crate::status::Status;

const GET_RANDOM: u32 = 5;
const DESCRIPTOR_BYTES: usize = 24;
const STATUS: u64 = 4;
/// Most bytes of a request.
const MAX_BYTES: usize = 8;

/// Performs the request whose descriptor is at `address`. One outside RAM has no place for a
/// status and is ignored.
pub(super) fn perform(memory: &Memory, address: u64, random: &mut Random) {
    let Ok(descriptor) = memory::read_array::<DESCRIPTOR_BYTES>(memory, address) else { return };
    let status = fill(memory, &descriptor, random).err().unwrap_or(Status::Success);
    // The descriptor was read from the same place.
    let _ = memory::write(memory, address + STATUS, &status.number().to_le_bytes());
}

fn fill(memory: &Memory, descriptor: &[u8], random: &mut Random) -> Result<(), Status> {
    let (command, target) = (le32(descriptor, 0), le64(descriptor, 12));
    if command != Some(GET_RANDOM) {
        return Err(Status::Unsupported);
    }
    let len = le32(descriptor, 20).unwrap_or_default() as usize;
    if len > MAX_BYTES {
        return Err(Status::InvalidParameter);
    }
    let mut bytes = [0; MAX_BYTES];
    random(&mut bytes);
    Ok(memory::write(memory, target.unwrap_or_default(), &bytes[..len])?)
}
