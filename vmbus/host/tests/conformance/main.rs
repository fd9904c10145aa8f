//! The host against the numbered checklists of `vmbus-core` section 14 (items 17 to 56) and `kmcl`
//! section 6, over the bare core.

#[path = "../common/mod.rs"]
mod common;

mod contact;
mod gpadl;
mod gpadl_life;
mod memory;
mod messages;
mod offers;
mod open;
mod quota;
mod rescind;
mod restore;
mod sockets;
mod subchannels;
