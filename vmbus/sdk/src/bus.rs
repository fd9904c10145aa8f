//! The bus, for a virtual machine monitor that puts devices on it.
//!
//! A machine implements [`Synic`] and makes a [`VmBus`] of it and its
//! [`GuestRam`](crate::memory::GuestRam). It offers devices, passes the guest's hypercalls to
//! [`VmBus::post_message`] and [`VmBus::signal_event`], and pauses, saves and resets the bus with
//! itself. [`mailbox`] delivers messages through the slots of its virtual processors.

#[doc(inline)]
pub use vmbus_host::core::{
    ChannelKey, ChannelReport, ChannelState, ConnectionState, GpadlReport, MessageCounts,
};
#[doc(inline)]
pub use vmbus_host::{
    BusReport, HvStatus, OpenReport, QueuedMessage, RestoreError, SaveError, SavedBus, Signal,
    Synic, VmBus, mailbox,
};
#[doc(inline)]
pub use vmbus_ring::RingSnapshot;
