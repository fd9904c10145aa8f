//! Hyper-V's integration services on the VMBus: shutdown, time, heartbeat, key-value pairs, backup
//! and file copy.
//!
//! | module | knowledge |
//! |---|---|
//! | [`protocol`] | messages: bytes in, decisions out. No I/O, no threads, no clock |
//! | `operation` | requests to the guest: one, or several that belong together |
//! | `port` | the connection between the host's clients and a channel |
//! | `service` | what each service does on its own, and the requests of clients |
//! | `services` | all services of a machine |
//! | `clock` | the clock of timeouts and intervals, and the timer that wakes a worker |
//! | `device` | the device of a service: offer, opening, save and restore |
//! | `handler` | a service's part of an open channel |
//! | `saved` | the format of saved states |
//!
//! [`Services`] is what the host's clients call; each [`ServiceDevice`] is offered to the guest
//! (docs/services.md).
#![forbid(unsafe_code)]

mod clock;
mod device;
mod error;
mod handler;
mod operation;
mod port;
pub mod protocol;
mod saved;
mod service;
mod services;

pub use clock::Clock;
pub use device::ServiceDevice;
pub use error::ServiceError;
pub use operation::Done;
pub use port::{ServiceCounters, ServiceState};
pub use service::copy::CopyProgress;
pub use service::heartbeat::{HEARTBEAT_INTERVAL, Health, MAX_MISSED};
pub use service::shutdown::ShutdownRequest;
pub use service::time::{HostClock, SAMPLE_INTERVAL};
pub use service::vss::MAX_FROZEN;
pub use services::{CopyHold, FreezeHold, ServiceReport, Services, ServicesOptions};
