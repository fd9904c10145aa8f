//! The part of a backend that is the same for all devices: workers that serve channels.

#[doc(inline)]
pub use vmbus_device::{
    ChannelHandler, Completed, InlineTurns, InlineWorkers, MAX_BUSY_POLL, MAX_PAUSE, MAX_WAITING,
    MAX_WAITING_BYTES, Outbox, Payload, Quiesced, SavedPacket, ServedDevice, SharedLoop,
    WorkerOptions, WorkerStats, Workers, serve,
};
#[doc(inline)]
pub use vmbus_host::worker::{Counter, WorkerCounters};
