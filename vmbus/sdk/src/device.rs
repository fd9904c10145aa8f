//! Devices and the channels that guests open to them.
//!
//! [`serve`](crate::serve) makes a [`Device`] of an [`Offer`] and a
//! [`ChannelHandler`](crate::ChannelHandler). Implement [`Device`] itself if channels share state,
//! if the device offers subchannels, or if it must survive a save and restore. Its `open` then
//! gives each channel to its [`Workers`](crate::runtime::Workers).

#[doc(inline)]
pub use vmbus_host::{Channel, ChannelHandle, Device, Offer, OfferError, OpenError};
#[doc(inline)]
pub use vmbus_protocol::offer::OfferFlags;
