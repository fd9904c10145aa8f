//! SET of TCP_OFFLOAD_PARAMETERS (netvsc section 7.4).

use super::super::bytes::u16_at;
use super::super::rndis::RndisStatus;
use super::offloads::{Directions, Offloads};

/// Applies offload parameters to the enabled offloads. Offloads beyond `capabilities` stay off
/// without an error.
///
/// # Errors
/// [`RndisStatus::InvalidData`]: the structure is malformed or has an unknown value.
/// [`RndisStatus::NotSupported`]: it enables version 1 of large send.
pub(super) fn apply(
    data: &[u8],
    enabled: Offloads,
    capabilities: Offloads,
) -> Result<Offloads, RndisStatus> {
    let structure = structure(data).ok_or(RndisStatus::InvalidData)?;
    // Revision 1 has no coalescing: no change.
    let value = |offset: usize| structure.get(offset).copied().unwrap_or(0);
    let mut offloads = enabled;
    for (offset, directions) in [
        (4, &mut offloads.ipv4),
        (5, &mut offloads.tcp4),
        (6, &mut offloads.udp4),
        (7, &mut offloads.tcp6),
        (8, &mut offloads.udp6),
    ] {
        *directions = checksum(value(offset), *directions)?;
    }
    if switch(value(9), false)? {
        return Err(RndisStatus::NotSupported);
    }
    for (offset, is_on) in [
        (11, &mut offloads.segment4),
        (12, &mut offloads.segment6),
        (22, &mut offloads.coalesce4),
        (23, &mut offloads.coalesce6),
    ] {
        *is_on = switch(value(offset), *is_on)?;
    }
    Ok(offloads.and(capabilities))
}

/// Returns the structure, with the size that its header has.
fn structure(data: &[u8]) -> Option<&[u8]> {
    const OBJECT_TYPE: u8 = 0x80;
    const MIN_SIZE: usize = 20;
    let size = usize::from(u16_at(data, 2)?);
    let is_sound = data[0] == OBJECT_TYPE && data[1] >= 1 && size >= MIN_SIZE;
    data.get(..size).filter(|_| is_sound)
}

fn checksum(value: u8, current: Directions) -> Result<Directions, RndisStatus> {
    let [transmit, receive] = match value {
        0 => return Ok(current),
        1 => [false, false],
        2 => [true, false],
        3 => [false, true],
        4 => [true, true],
        _ => return Err(RndisStatus::InvalidData),
    };
    Ok(Directions { transmit, receive })
}

fn switch(value: u8, current: bool) -> Result<bool, RndisStatus> {
    match value {
        0 => Ok(current),
        1 => Ok(false),
        2 => Ok(true),
        _ => Err(RndisStatus::InvalidData),
    }
}
