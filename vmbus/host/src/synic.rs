//! A machine's synthetic interrupt controller, as the bus uses it.
//!
//! KVM's in-kernel SynIC implements this in the `synthvm` crate; the loopback VM implements it over
//! plain memory.

use std::io;

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::EventFd;

/// The outcome of one event signal (spec vmbus-core section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The flag went 0 -> 1 and the interrupt was raised.
    Raised,
    /// The flag was still set: the guest has not read it yet, so no interrupt was needed.
    AlreadySet,
    /// The VP's SynIC or event flags page is off: the machine remembers the flag and sets it when
    /// the page is switched on.
    Disabled,
}

/// A message that waits for its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(deny_unknown_fields))]
pub struct QueuedMessage {
    /// VP index.
    pub vp: u32,
    /// SINT, 0..=15.
    pub sint: u8,
    /// The whole message, at most 240 bytes.
    pub message: Vec<u8>,
}

/// A machine's synthetic interrupt controller, as the bus uses it. All methods may be called from
/// any thread and never block for long.
pub trait Synic: Send + Sync {
    /// Returns the number of virtual processors; VP indices are `0..vp_count()`.
    fn vp_count(&self) -> u32;

    /// Queues one VMBus channel message (SynIC message type 1, at most 240 bytes) for `sint` of
    /// `vp`.
    ///
    /// Messages to one (VP, SINT) arrive in the order of the calls. A busy slot, a disabled message
    /// page or a masked SINT delay a message; they never lose it. A `vp` or `sint` out of range is
    /// ignored.
    fn post_message(&self, vp: u32, sint: u8, message: &[u8]);

    /// Drops every message that is still queued, for all VPs: their connection is gone.
    fn discard_messages(&self);

    /// Returns the number of queued messages that the guest cannot read yet, for all VPs together.
    /// Called at each message from the guest. A machine without queues has none.
    fn waiting_messages(&self) -> usize {
        0
    }

    /// Returns the queued messages, in order for each (VP, SINT). A restored machine must get them
    /// again.
    fn queued_messages(&self) -> Vec<QueuedMessage> {
        Vec::new()
    }

    /// Sets event flag `flag` (0..=2047) of `sint` in the event flags page of `vp`, and raises the
    /// SINT if the flag was clear.
    ///
    /// While the page or the SynIC is off, the machine remembers the flag and sets it when both are
    /// on. A lost signal would block its channel forever.
    fn signal_event(&self, vp: u32, sint: u8, flag: u16) -> Signal;

    /// Forgets flag `flag` if it is remembered for a page that is off: its channel is closed, or
    /// signals another VP now. A flag in a page belongs to the guest and stays.
    fn forget_signal(&self, vp: u32, sint: u8, flag: u16) {
        let _ = (vp, sint, flag);
    }

    /// Makes HvSignalEvent on `connection_id` (24 bits) write `event`, without leaving the kernel
    /// if the machine can.
    ///
    /// # Errors
    /// The machine's own: id in use, or the kernel refused.
    fn bind_doorbell(&self, connection_id: u32, event: &EventFd) -> io::Result<()>;

    /// Undoes [`Synic::bind_doorbell`].
    fn unbind_doorbell(&self, connection_id: u32, event: &EventFd);
}
