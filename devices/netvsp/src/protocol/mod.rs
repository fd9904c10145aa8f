//! The network protocol inside opened channels, without I/O: bytes in, decisions out.
//!
//! * [`nvsp`]: the messages on the ring, and [`nvsp::Session`], which judges them.
//! * [`rndis`]: the messages that NVSP carries: frames in both directions, control messages.
//! * [`oid`]: the values that control messages query and set.
//! * [`filter`]: the packet filter, which decides about a frame by its destination.
//! * [`rss`]: receive-side scaling: the Toeplitz hash and the queue that it selects.
//! * [`sub_allocations`]: the parts of the receive buffer, and the channels that own them.
//!
//! Callers copy guest memory before they pass it on, so no byte changes between its check and its
//! use. No input panics, loops without bound or allocates memory. All integers on the wire are
//! little-endian.
//!
//! Source: docs/spec/netvsc.md.

mod address;
mod bytes;
pub mod filter;
mod frame_headers;
pub mod limits;
pub mod nvsp;
pub mod oid;
pub mod rndis;
pub mod rss;
pub mod sub_allocations;

pub use address::{MacAddress, ParseMacAddressError};
pub use frame_headers::{FrameHeaders, Protocol};
