//! VMBus ring pairs: packets, batches, signalling and flow control over mapped guest pages.
//!
//! A channel has two rings; each end reads one ([`Incoming`]) and writes the other ([`Outgoing`]).
//! Both ends run the same code: the host over a GPADL's pages, an in-process guest over its own.
//!
//! ```text
//! GpadlView -> RingMemory (mirrored or paged) -> Incoming -> ReadBatch -> Packet
//!                                             -> Outgoing -> WriteBatch -> OutPacket
//! ```
//!
//! The peer is hostile: it may rewrite any byte at any moment. Every shared field is read once into
//! a local variable, which is then checked and used. If the peer breaks a rule, its ring is stopped
//! ([`RingError`]) and the memory is not accessed afterwards. Source: `vmbus-core` sections 6 and
//! 7.
//!
//! Without the feature `std`, which is on by default, the crate is `no_std` + `alloc`: rings come
//! from [`RingMemory::from_pages`], and a host's view of a guest's memory does not exist.
#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::as_conversions))]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

extern crate alloc;

mod control;
mod ends;
mod error;
mod external;
mod incoming;
pub mod limits;
mod memory;
mod offset;
mod outgoing;
mod packet;
mod snapshot;
mod wire;

pub use error::{MapError, PacketError, RingError, WriteError};
pub use external::{GpaRange, TransferRange, gpa_direct_header, transfer_pages_header};
pub use incoming::{BatchPosition, Incoming, ReadBatch};
#[cfg(feature = "std")]
pub use memory::PlainMemory;
pub use memory::{Mode, RingMemory};
pub use outgoing::{OutPacket, Outgoing, SpaceWait, WriteBatch};
pub use packet::Packet;
pub use snapshot::{RingSnapshot, RingWatch};
pub use wire::PacketKind;
