//! The services: what each does on its own, and the requests of clients.

pub(crate) mod copy;
pub(crate) mod heartbeat;
pub(crate) mod kvp;
pub(crate) mod shutdown;
pub(crate) mod time;
pub(crate) mod vss;
