//! netvsp: Hyper-V's synthetic network card on the VMBus.
//!
//! | module | knowledge |
//! |---|---|
//! | [`protocol`] | NVSP and RNDIS: bytes in, decisions out. No I/O, no threads, no clock |
//! | `card` | the device: options, opening of channels |
//! | `state` | the part of a card that its channels share |
//! | `primary`, `subchannel` | the handlers of the two kinds of channels |
//! | `control_plane` | control messages and their answers |
//! | `data_path` | frames of one channel, for both handlers |
//! | `transmitter`, `transmit`, `message` | from the guest's packet to the backend |
//! | `receiver`, `inspect` | from the backend to the receive buffer, and to a channel's ring |
//! | `group`, `config`, `inbox`, `queue` | what the channels of one card share |
//! | `counters` | what any thread may read of the channels |
//! | `link` | the link's state, the thread that watches it, indications to the guest |
//! | `saved`, `restore` | save and restore |
//! | `packet` | packets to the guest |
//!
//! [`NetworkCard`] is the device (docs/networking.md).
#![forbid(unsafe_code)]

mod card;
mod config;
mod control_plane;
mod counters;
mod data_path;
mod error;
mod group;
mod inbox;
mod inspect;
mod link;
mod message;
mod packet;
mod primary;
pub mod protocol;
mod queue;
mod receiver;
mod restore;
mod saved;
mod state;
mod subchannel;
mod transmit;
mod transmitter;

pub use card::{CardOptions, NetworkCard};
pub use counters::ChannelCounters;
pub use link::Clock;
