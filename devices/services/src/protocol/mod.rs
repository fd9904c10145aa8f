//! The messages of the integration services: bytes in, decisions out. No I/O, no threads, no clock.
//! Source: docs/spec/integration-services.md.
//!
//! | module | knowledge |
//! |---|---|
//! | `fields` | fields of bodies by their place |
//! | `header` | the headers that all services share |
//! | `kind` | the services: their GUIDs, message types and versions |
//! | `negotiation` | the agreement on versions |
//! | `session` | one outstanding request, transaction ids, late responses |
//! | `status` | the status of a response |
//! | `text` | UTF-16 texts in fields of a fixed size |
//! | [`shutdown`], [`time`], [`heartbeat`], [`kvp`], [`ip`], [`vss`], [`copy`] | the bodies of each
//! service's messages |

mod fields;
mod header;
mod kind;
mod negotiation;
mod session;
mod status;
mod text;

pub mod copy;
pub mod heartbeat;
pub mod ip;
pub mod kvp;
pub mod shutdown;
pub mod time;
pub mod vss;

pub use header::{HEADERS, MAX_PACKET, Malformed};
pub use kind::ServiceKind;
pub use negotiation::{Agreed, Version};
pub use session::{Link, MAX_UNANSWERED, Received, Rejected, Response, SavedSession, Session};
pub use status::Status;
pub use text::{TextError, decode, encode_into};
