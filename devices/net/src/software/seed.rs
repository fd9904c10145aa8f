//! The headers of frames that a kernel splits.

use super::checksum::{finish, sum};
use super::{Headers, Malformed, UDP};

/// Completes the headers of a frame that a kernel is to split, as guests leave them incomplete:
/// sets the length fields for all of the frame, the IPv4 header's checksum, and the transport
/// checksum to the sum of the pseudo-header with the length. Kernels take the rest from the
/// virtio-net header.
///
/// `start` has the frame's first bytes with all headers, `length` is the frame's, in bytes.
///
/// # Errors
/// The headers are not all there, or a length does not fit its field. `start` is unchanged.
pub fn complete_headers(start: &mut [u8], length: usize) -> Result<Headers, Malformed> {
    let headers = Headers::find(start)?;
    let transport = length.checked_sub(headers.transport).ok_or(Malformed)?;
    let packet = length - headers.network;
    let field = if headers.v6 { packet.checked_sub(40).ok_or(Malformed)? } else { packet };
    let field = u16::try_from(field).map_err(|_| Malformed)?;
    let (network, segment) =
        start[headers.network..].split_at_mut(headers.transport - headers.network);
    let addresses = if headers.v6 {
        network[4..6].copy_from_slice(&field.to_be_bytes());
        8..40
    } else {
        network[2..4].copy_from_slice(&field.to_be_bytes());
        network[10..12].fill(0);
        let checksum = finish(sum(0, network));
        network[10..12].copy_from_slice(&checksum.to_be_bytes());
        12..20
    };
    let pseudo = transport as u64 + u64::from(headers.protocol);
    let seed = !finish(sum(pseudo, &network[addresses]));
    let at = if headers.protocol == UDP {
        // It fits: the packet's length did.
        segment[4..6].copy_from_slice(&(transport as u16).to_be_bytes());
        6
    } else {
        16
    };
    segment[at..at + 2].copy_from_slice(&seed.to_be_bytes());
    Ok(headers)
}
