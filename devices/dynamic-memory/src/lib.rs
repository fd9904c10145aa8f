//! Hyper-V's dynamic memory on the VMBus: the guest gives pages to the host (a balloon), takes them
//! back, takes more memory than it booted with (hot add), and reports its memory pressure.
//!
//! | module | knowledge |
//! |---|---|
//! | [`protocol`] | messages: bytes in, decisions out. No I/O, no time |
//! | `policy` | how much memory the guest shall have. No I/O, no time of its own |
//! | `balloon`, `page_set` | which pages the guest gave, and which the host has back |
//! | `host` | what the device needs of its host ([`HostMemory`]), and guest memory in files |
//! | `state` | the device's state, which its owner and its channel share |
//! | [`Engine`] | the device without a channel |
//! | `device`, `handler` | the device on the bus, and its part of an open channel |
//! | `saved` | the format of saved states |

mod balloon;
mod device;
mod engine;
mod handler;
mod host;
mod page_set;
mod policy;
pub mod protocol;
mod state;

pub use device::{DYNAMIC_MEMORY, DYNAMIC_MEMORY_INSTANCE, DynamicMemory, DynamicMemoryOptions};
pub use engine::Engine;
pub use host::{FileMemory, HostMemory, MemorySlots};
pub use policy::Bounds;
pub use protocol::PageRange;
pub use state::{Counters, SetError, Sizes, Status};
