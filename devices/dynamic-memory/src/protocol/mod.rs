//! The protocol: bytes in, decisions out. No I/O, no time, no memory.
//!
//! | module | knowledge |
//! |---|---|
//! | `message` | the form of each message |
//! | `range` | ranges of pages |
//! | `session` | the order of messages |
//! | `version` | versions |

mod message;
mod range;
mod session;
#[cfg(test)]
mod tests;
mod version;

pub use message::{
    GuestMessage, HostMessage, HotAddOutcome, MAX_MESSAGE, MAX_RANGES, Pressure, Rejected,
};
pub use range::PageRange;
pub use session::{
    Capabilities, Event, MAX_UNBALLOON_MESSAGES, MAX_UNBALLOON_RANGES, Outcome, Request, Session,
};
pub use version::Version;
