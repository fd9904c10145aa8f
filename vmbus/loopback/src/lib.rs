//! An in-process VM: VMBus host and client over plain guest memory, without KVM.
//!
//! [`LoopbackVm`] has a real [`vmbus_host::VmBus`] over memfd-backed guest memory (so that rings
//! are mirrored), a synthetic interrupt controller in plain memory, and the guest's side for a
//! [`vmbus_client::Client`]. Only the processor is simulated.
//!
//! [`bare`] has a guest without a client, which writes its rings itself.
//!
//! There are two modes ([`Mode`]). Stepped: devices run only when the caller says so, all in one
//! thread, for tests and exact benches. Threaded: devices have worker threads, and the client
//! sleeps until an event arrives.

pub mod bare;
mod config;
mod device;
mod memory;
mod platform;
mod rings;
mod synic;
mod vm;
mod workers;

pub use config::{Config, Mode};
pub use device::{ManualDevice, OpenedChannels, Served};
pub use memory::{GuestPages, Layout};
pub use platform::LoopbackPlatform;
pub use rings::{LoopbackRings, attach_rings};
pub use synic::LoopbackSynic;
pub use vm::LoopbackVm;
pub use workers::{Flow, Handler, Workers};
