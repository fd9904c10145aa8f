//! Actions that the core asks the shell for.

use vmbus_gpadl::GpadlView;
use vmbus_protocol::MessageBuffer;

use super::channel::ChannelKey;
use super::sockets::ConnectRequest;

/// An action for the shell. Actions are carried out in order.
#[derive(Debug)]
pub enum Action {
    /// Queue a message for (`vp`, `sint`).
    Post {
        /// VP index.
        vp: u32,
        /// SINT, 0..=15.
        sint: u8,
        /// The whole message.
        message: MessageBuffer,
    },
    /// Drop every message that still waits for a slot: its connection is gone.
    DiscardMessages,
    /// The channel is about to be offered: signals on `connection_id` must be accepted from now on.
    Bind {
        /// The channel.
        key: ChannelKey,
        /// The connection id for HvSignalEvent.
        connection_id: u32,
    },
    /// The guest released the channel: the connection id is free.
    Unbind {
        /// The channel.
        key: ChannelKey,
        /// The connection id of the earlier `Bind`.
        connection_id: u32,
    },
    /// Give the channel to its device, then report `Core::opened`.
    Open {
        /// The channel.
        key: ChannelKey,
        /// Parameters of the open.
        params: OpenParams,
    },
    /// Give an open channel of a restored bus back to its device, then report `Core::reopened`. The
    /// guest does not notice.
    Reopen {
        /// The channel.
        key: ChannelKey,
        /// Parameters of the open.
        params: OpenParams,
        /// The state that its device saved.
        state: Vec<u8>,
    },
    /// Set the channel's event flag once.
    Signal {
        /// The channel.
        key: ChannelKey,
    },
    /// Make the device check the channel: a GPADL that it maps is being torn down.
    Wake {
        /// The channel.
        key: ChannelKey,
    },
    /// Send the channel's events to another VP from now on.
    Retarget {
        /// The channel.
        key: ChannelKey,
        /// VP index.
        vp: u32,
    },
    /// Ask the device to close the channel; `Core::closed` follows when it has.
    Close {
        /// The channel.
        key: ChannelKey,
    },
    /// The guest asks for a connection to a service. The shell offers a channel for it, or calls
    /// `Core::refuse_connect`.
    Connect(ConnectRequest),
    /// The channel no longer exists.
    Removed {
        /// The channel.
        key: ChannelKey,
    },
    /// A reset is complete: no device touches guest memory, no GPADL exists.
    Quiesced,
}

/// Parameters of a guest's open.
#[derive(Debug)]
pub struct OpenParams {
    /// The primary channel. Its device serves this channel.
    pub primary: ChannelKey,
    /// 0 for the primary itself.
    pub subchannel: u16,
    /// Channel id of this connection.
    pub relid: u32,
    /// Pages `0..downstream_page` are the guest→host ring, the rest the host→guest ring.
    pub ring: GpadlView,
    /// First page of the host→guest ring.
    pub downstream_page: usize,
    /// VP index that gets events, or [`vmbus_protocol::offer::NO_INTERRUPT_VP`].
    pub target_vp: u32,
    /// Event flag.
    pub event_flag: u16,
    /// Class-specific data.
    pub user_data: [u8; 120],
}
