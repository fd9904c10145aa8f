//! netvsp: Hyper-V's synthetic network card on the VMBus.
//!
//! | module | knowledge |
//! |---|---|
//! | [`protocol`] | NVSP and RNDIS: bytes in, decisions out. No I/O, no threads, no clock |
//! | the rest | joins it to a ring and to a packet backend ([`synthvm_net::Backend`]) |
//!
//! [`NetworkCard`] is the device. It has one channel so far (docs/networking.md).
#![forbid(unsafe_code)]

mod card;
mod handler;
mod message;
mod packet;
pub mod protocol;
mod receive;
mod transmit;

pub use card::{CardOptions, NetworkCard};
