//! Hyper-V sockets: connections between the guest's AF_VSOCK and Unix sockets of the host.
//!
//! | module | knowledge |
//! |---|---|
//! | [`protocol`] | services, offers, frames, the host's handshake. No I/O, no threads |
//! | `services` | the Unix socket behind each service |
//! | `unix` | Unix sockets without blocking |
//! | [`pump`] | an open connection: from ring to socket and back, without a buffer |
//! | `event_loop` | the thread that serves all connections |
//! | `device` | a connection as the bus sees it |
//! | `shared` | the state that the thread, the bus, the devices and reports share |
//!
//! [`Sockets`] joins them to a bus (docs/sockets.md).

mod counters;
mod device;
mod event_loop;
mod limits;
pub mod protocol;
pub mod pump;
mod services;
mod shared;
mod sockets;
mod unix;

pub use counters::SocketReport;
pub use limits::{
    CLIENT_TIMEOUT, CONNECT_TIMEOUT, LINGER_TIME, MAX_CLIENTS, MAX_CONNECTIONS, MAX_REQUESTS,
    OPEN_TIMEOUT,
};
pub use services::Services;
pub use sockets::{SocketOptions, Sockets};
