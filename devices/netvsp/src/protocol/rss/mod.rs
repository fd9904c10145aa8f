//! Receive-side scaling: the queue of a frame follows from a hash of its flow (netvsc section
//! 7.5).
//!
//! * [`ToeplitzKey`]: a key, prepared for hashing.
//! * [`FlowHash`]: the hash of a frame, by the hash types that the guest enables.
//! * [`RssTable`]: the indirection table from hashes to channels.

mod flow;
mod table;
#[cfg(test)]
mod tests;
mod toeplitz;

pub use flow::{FlowHash, HashTypes};
pub use table::RssTable;
pub use toeplitz::ToeplitzKey;
