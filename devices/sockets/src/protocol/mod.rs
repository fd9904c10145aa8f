//! Hyper-V sockets on the wire and the host's handshake: bytes in, decisions out. No I/O, no
//! threads.
//!
//! Source: docs/spec/hvsock-vpci.md part A.

mod handshake;
mod offer;
mod pipe;
mod service;
#[cfg(test)]
mod tests;

pub use handshake::{BadRequest, MAX_LINE, Target, parse_request, reply};
pub use offer::{Initiator, offer};
pub use pipe::{
    BadFrame, Frame, HEADER_BYTES, MAX_DATA, MAX_PACKET, data_header, frame, total_bytes,
};
pub use service::{TEMPLATE, port_of, service_of};
