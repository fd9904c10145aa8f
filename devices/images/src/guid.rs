//! New GUIDs.

use std::io;

use vmbus_protocol::Guid;

/// Returns a random GUID (RFC 9562 version 4).
pub(crate) fn new_guid() -> io::Result<Guid> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    // A GUID's bytes are swapped up to the third field, which has the version.
    bytes[7] = bytes[7] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    Ok(Guid::from_bytes(bytes))
}
