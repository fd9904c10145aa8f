//! netvsp: Hyper-V's synthetic network card on the VMBus.
//!
//! | module | knowledge |
//! |---|---|
//! | [`protocol`] | NVSP and RNDIS: bytes in, decisions out. No I/O, no threads, no clock |
//!
//! The handler that joins the protocol to rings and packet backends is not part of it yet
//! (docs/networking.md).
#![forbid(unsafe_code)]

pub mod protocol;
