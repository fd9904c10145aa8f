//! VMBus on the wire: every structure, one table of messages, versions and sizes. `no_std`, no
//! unsafe.
//!
//! All integers are little-endian; sizes and offsets are bytes. Facts: `vmbus-core` sections 2 to
//! 6.
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::panic
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::panic
    )
)]

pub mod limits;
pub mod num;

pub mod buffer;
pub mod guid;
pub mod message;
pub mod offer;
pub mod version;

pub use buffer::MessageBuffer;
pub use guid::Guid;
pub use version::Version;
