//! The receive buffer in parts of equal size (netvsc sections 3.1 and 5).
//!
//! * [`Geometry`]: size and number of the sub-allocations.
//! * [`Partition`]: the owner of each sub-allocation: control messages, or one channel.
//! * [`Share`]: the sub-allocations of one owner, free or in use.

mod geometry;
mod partition;
mod saved;
mod share;
#[cfg(test)]
mod tests;
mod transaction;

pub use geometry::Geometry;
pub use partition::{Owner, Partition};
pub use saved::{InvalidShare, SavedPacket};
pub use share::{Refused, Share, SubAllocation};
pub use transaction::TransactionId;
