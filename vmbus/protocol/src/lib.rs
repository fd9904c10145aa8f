//! VMBus on the wire: every structure, one table of messages, versions and sizes. `no_std`, no
//! unsafe.
//!
//! All integers are little-endian; sizes and offsets are bytes. Facts: `vmbus-core` sections 2 to
//! 6.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::as_conversions))]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod limits;
pub mod num;

pub mod buffer;
pub mod guid;
pub mod message;
pub mod offer;
pub mod version;
mod wire_enum;

pub use buffer::MessageBuffer;
pub use guid::Guid;
pub use version::Version;
