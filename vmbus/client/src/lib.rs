//! The guest's end of VMBus, with the semantics and the terms of the Windows kernel-mode client
//! library (`VMBKMCL`). `no_std` + `alloc`.
//!
//! ```text
//! Platform (hypercalls, slot, flags, memory, rings)
//!     -> Client (contact, offers)
//!         -> Channel (life, GPADLs, packets) <-> Driver (callbacks)
//! ```
//!
//! | Windows | here |
//! |---|---|
//! | `VmbChannelAllocate`, `Cleanup` | [`Client::allocate`], [`Channel::cleanup`] |
//! | `VmbChannelInitSet*`, `VmbClientChannelInitSet*` | [`Channel::init_set_target_pnp`] and its neighbours; only while disabled |
//! | `VmbChannelEnable`, `Start`, `Pause`, `Disable` | [`Channel::enable`], [`Channel::start`], [`Channel::pause`], [`Channel::disable`] |
//! | `EvtChannelOpened`, `Started`, `PostStarted`, `Suspend`, `Closed`, `ProcessPacket` ... | [`Driver`] |
//! | `VmbChannelCreateGpadlFromMdl`, `FromBuffer`, `FromPfnList`, `DeleteGpadl` | [`Channel::create_gpadl_from_mdl`] and its neighbours |
//! | `VmbPacketSend`, `SendWithExternalMdl`, `SendWithExternalPfns` | [`Channel::send`] and its neighbours |
//! | `VmbChannelSendSynchronousRequest` | [`Channel::send_synchronous_request`], its timeout in [`Waiting`] |
//! | `VmbChannelPacketComplete`, `PacketFail` | [`Channel::packet_complete`], [`Channel::packet_fail`] |
//! | client context, `Set/GetPointer` | fields of your [`Driver`], captures of a completion routine |
//!
//! Where Windows waits forever, a client on an idle machine returns [`Error::Stalled`]: in the
//! loopback VM's stepped mode a hang is a failed call.
//!
//! Rings are behind [`platform::Rings`], as access to them needs mapped memory, which no `no_std`
//! crate can create by itself. The feature `ring` adds `RingPair`, which implements it by
//! `vmbus-ring`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod channel;
mod client;
mod config;
mod connection;
mod cut;
mod error;
pub mod gpadl;
mod handles;
mod mdl;
mod message;
pub mod platform;
mod received;
#[cfg(feature = "ring")]
mod rings;
mod state;
mod status;

pub use channel::{ChannelState, PacketObject, SendFlags, Waiting};
pub use config::ChannelFlags;
pub use connection::{ContactOptions, NEWEST_FIRST};
pub use error::{Error, GpadlError};
pub use handles::{ChannelId, GpadlFlags, GpadlHandle};
pub use mdl::{Mdl, MdlError};
pub use message::Offer;
pub use platform::Platform;
pub use received::{Completion, Received};
#[cfg(feature = "ring")]
pub use rings::RingPair;
pub use state::{Answer, Channel, Client, Driver, Stats};
pub use status::NtStatus;
