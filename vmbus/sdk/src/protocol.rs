//! VMBus on the wire: GUIDs, versions, flags, messages and limits.
//!
//! Devices need [`Guid`] and [`class`], which has the classes of known devices. The rest is for
//! tools and tests that read or write the bus's own messages.

#[doc(inline)]
pub use vmbus_protocol::guid::class;
#[doc(inline)]
pub use vmbus_protocol::{Guid, MessageBuffer, Version, guid, limits, message, offer};
