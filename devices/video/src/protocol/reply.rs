//! Messages to the guest.

use super::mode::Resolution;

/// "Accepted, with version exchange": what Hyper-V's own firmware expects.
const ACCEPTED: u8 = 2;
/// Outputs of the device.
const OUTPUTS: u8 = 1;
/// Bytes of the EDID block. It is zero: guests take the list instead.
const EDID: usize = 128;

/// Returns the answer to a request for `version`.
pub(super) fn version(version: u32, is_accepted: bool) -> Vec<u8> {
    let accepted = if is_accepted { ACCEPTED } else { 0 };
    message(2, &[&version.to_le_bytes(), &[accepted, OUTPUTS]])
}

/// Returns the acknowledgement of VRAM_LOCATION.
pub(super) fn location(context: u64) -> Vec<u8> {
    message(4, &[&context.to_le_bytes()])
}

/// Returns the acknowledgement of SITUATION_UPDATE.
pub(super) fn situation(context: u64) -> Vec<u8> {
    message(6, &[&context.to_le_bytes()])
}

/// Returns the request for rectangles, pointer positions and shapes, and situations.
pub(super) fn feature_change() -> Vec<u8> {
    message(9, &[&[1; 4]])
}

/// Returns the answer to BIOS_INFO: the device may be stopped.
pub(super) fn bios_info() -> Vec<u8> {
    message(12, &[&1_u32.to_le_bytes(), &[0; 12]])
}

/// Returns the list of resolutions. The first one is the default.
pub(super) fn resolutions(list: &[Resolution]) -> Vec<u8> {
    let sizes: Vec<u8> =
        list.iter().flat_map(|one| [one.width, one.height]).flat_map(u16::to_le_bytes).collect();
    let count = u8::try_from(list.len()).unwrap_or(0);
    message(14, &[&[0; EDID], &[count, 0, 0], &sizes])
}

/// Returns the answer to CAPABILITY: none.
pub(super) fn capability() -> Vec<u8> {
    message(16, &[&[0; 64]])
}

/// Returns a message in the pipe's packet. Its size is that of its body, as on Windows.
fn message(kind: u32, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let words = [1, length.saturating_add(8), kind, length];
    words.into_iter().flat_map(u32::to_le_bytes).chain(body).collect()
}
