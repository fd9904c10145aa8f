//! Packet backends for network devices: frames between guest memory and the outside.
//!
//! A [`Backend`] is one network port that all channels of a card share. The worker of each channel
//! owns one [`Queue`] of it, so a frame takes no lock: [`Queue::send`] takes one [`Frame`],
//! [`Queue::receive`] writes one frame to guest memory ([`Pieces`]). Neither blocks; an event
//! loop waits for [`Queue::event`], and while it has frames left to send for
//! [`Queue::space_event`].
//!
//! A queue is done with a frame's memory when its call returns.
//!
//! | module or type | backend |
//! |---|---|
//! | [`tap`] | a TAP interface of the host |
//! | [`passt`] | user-mode networking without privilege, by a child process |
//! | [`Switch`] | a learning switch in this process |
//! | [`UnixLink`] | a cable between two processes |
//! | [`NullNet`], [`Loop`] | drops frames, or returns them: for measurements and tests |
//! | [`software`] | adds transmit offloads to another backend |
//! | [`Attachment`] | a link that the user can take down, and counters that any thread can read |
//! | [`Capture`] | writes the frames of another backend to a pcapng file |
//! | `conformance` (feature) | the checks that every backend must pass |
//!
//! The crate knows no bus, no NVSP and no RNDIS.

mod attachment;
mod capture;
mod claim;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod connection;
mod counted;
mod echo;
mod endpoint;
mod frame;
mod header;
mod layer;
mod link;
mod null;
mod offload;
pub mod passt;
mod pieces;
mod queue;
mod readiness;
mod ring;
mod socket;
pub mod software;
mod switch;
pub mod tap;
mod unix_link;
mod vectored;
pub mod vlan;

use std::fmt::Debug;
use std::io;
use std::os::fd::RawFd;

pub use attachment::{Attachment, QueueReport};
pub use capture::Capture;
pub use echo::Loop;
pub use frame::{Frame, MAX_FRAME, MIN_FRAME};
pub use header::{Segmentation, VnetHeader};
pub use link::LinkState;
pub use null::NullNet;
pub use offload::Offloads;
pub use pieces::{MAX_PIECES, Pieces, TooManyPieces};
pub use queue::{Counters, Queue, ReceiveError, Received, SendError};
pub use switch::{Switch, SwitchPort};
pub use unix_link::UnixLink;

/// An Ethernet address, in the order of the wire.
pub type Mac = [u8; 6];

/// One network port, shared by the workers of a card.
pub trait Backend: Debug + Send + Sync {
    /// Returns the number of queues; at least one.
    fn queues(&self) -> usize {
        1
    }

    /// Returns the offloads that the backend can do. They do not change while it is open.
    fn offloads(&self) -> Offloads;

    /// Returns the largest MTU: bytes of a frame after its Ethernet header of 14 bytes. The default
    /// is the largest of all, 65,535.
    fn mtu_limit(&self) -> u32 {
        (MAX_FRAME - MIN_FRAME) as u32
    }

    /// Opens queue `index`, for one worker. Dropping the queue makes the index free again.
    ///
    /// # Errors
    /// `InvalidInput`: there is no such queue. `ResourceBusy`: it is open. Else the system's error.
    fn queue(&self, index: usize) -> io::Result<Box<dyn Queue>>;

    /// Returns the state of the link, and makes [`Backend::link_event`] unreadable until the state
    /// changes again. The default is the link of a backend without an outside, always up.
    fn link(&self) -> LinkState {
        LinkState::Up
    }

    /// Returns a descriptor that is readable after the link has changed. `None`: it never changes.
    fn link_event(&self) -> Option<RawFd> {
        None
    }

    /// Tries to bring a link up that is down: opens the TAP again, restarts the child, accepts the
    /// peer. Does nothing while the link is up. This call may block: a control thread makes it,
    /// for example once a second while the link is down.
    ///
    /// # Errors
    /// The reason why the link stays down.
    fn reconnect(&self) -> io::Result<()> {
        Ok(())
    }

    /// Selects the receive offloads in use, a subset of `RECEIVE_CHECKSUM` and `COALESCED_RECEIVE`
    /// of [`Backend::offloads`]. None is in use at first. The default accepts all that the backend
    /// has, and is for those whose frames do not depend on the selection.
    ///
    /// # Errors
    /// `Unsupported`: the backend lacks one of them. Else the system's error; nothing has changed.
    fn set_receive_offloads(&self, offloads: Offloads) -> io::Result<()> {
        let available = self.offloads() & Offloads::RECEIVE;
        if available.contains(offloads) { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// Announces the card's address. A backend may use it to filter; the card filters anyway.
    fn set_mac(&self, mac: Mac) {
        let _ = mac;
    }

    /// Announces which frames the card wants. A backend may filter; the card filters anyway.
    fn set_filter(&self, filter: &Filter) {
        let _ = filter;
    }
}

/// Frames that a card wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// All frames.
    pub promiscuous: bool,
    /// Frames to the card's own address.
    pub directed: bool,
    /// Frames to the broadcast address.
    pub broadcast: bool,
    /// Frames to any group address.
    pub all_multicast: bool,
    /// Frames to these group addresses.
    pub multicast: Vec<Mac>,
}
