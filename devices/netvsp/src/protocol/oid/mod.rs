//! OIDs: the values that control messages query and set (netvsc section 7).
//!
//! * [`query`]: the answer to a query.
//! * [`set`]: the change that a guest asks for, applied to [`Settings`].
//! * [`Statistics`]: the counters of a card.
//! * [`Offloads`]: checksums, segmentation and coalescing, either supported or enabled.

mod answer;
mod card;
mod codes;
mod config_parameter;
mod offload_parameters;
mod offloads;
mod query;
mod rss_parameters;
mod set;
mod statistics;
#[cfg(test)]
mod tests;

pub use answer::OidAnswer;
pub use card::{CardProperties, Connection, Link, RssSettings, Settings};
pub use offloads::{Directions, OffloadRevision, Offloads};
pub use query::query;
pub use set::{Change, set};
pub use statistics::{Count, Destination, Statistics, Traffic};
