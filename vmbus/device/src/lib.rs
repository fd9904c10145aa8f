//! The runtime of VMBus backends.
//!
//! A backend author writes a [`ChannelHandler`]: packet in, packets out. The runtime does the rest
//! for each open channel: it sleeps on the doorbell, reads the ring in batches, writes all replies
//! of a batch with at most one interrupt, waits for space in a full ring, leaves requests in the
//! ring while the handler has enough in flight, polls for a moment before it sleeps while that
//! pays, delays interrupts while that makes more requests finish, and quiesces for pause, save and
//! restore.
//!
//! ```text
//! doorbell -> worker -> ChannelHandler::packet      (up to 64 packets, then end_batch)
//! guest    <- worker <- Outbox <- ChannelHandler::complete  (the handler's own descriptors)
//! ```
//!
//! [`serve`] makes a device of a handler. A device with more to do keeps one [`Workers`] for all
//! its channels, and calls [`Workers::start`] in [`vmbus_host::Device::open`]. Each channel has a
//! thread of its own, or shares one with others in a [`SharedLoop`], or is served by
//! [`InlineWorkers`] in tests and benchmarks.
//!
//! | module | knowledge |
//! |---|---|
//! | `handler` | the interface that a device implements |
//! | `served` | a device out of an offer and a handler |
//! | `workers` | the channels of one device: options, start, kick, pause and resume |
//! | `shared` | the state that the workers of a device share |
//! | `worker` | the loop of one channel |
//! | `outbox` | packets to the guest that wait for space in the ring |
//! | `busy_poll` | whether and how long to poll before sleeping |
//! | `moderation` | whether and how long to delay an interrupt |
//! | `wake` | the cost of a wake-up on this machine |
//! | `quiesce` | which workers of a paused device may still touch guest memory |
//! | `shared_loop` | a thread that serves many channels |
//! | `inline` | workers without threads |
//! | `saved` | the form of saved states (feature `serde`) |

mod busy_poll;
mod handler;
mod inline;
mod limits;
mod moderation;
mod outbox;
mod quiesce;
#[cfg(feature = "serde")]
mod saved;
mod served;
mod shared;
mod shared_loop;
mod wait;
mod wake;
mod worker;
mod workers;

pub use handler::{ChannelHandler, Completed};
pub use inline::{InlineTurns, InlineWorkers};
pub use limits::{MAX_BUSY_POLL, MAX_PAUSE, MAX_WAITING, MAX_WAITING_BYTES};
pub use outbox::{Outbox, Payload, SavedPacket};
pub use quiesce::Quiesced;
#[cfg(feature = "serde")]
pub use saved::{SavedChannel, SavedForm, SavedFormError};
pub use served::{ServedDevice, serve};
pub use shared_loop::SharedLoop;
pub use vmbus_host::WorkerStats;
pub use workers::{WorkerOptions, Workers};
