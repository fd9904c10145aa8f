//! `synthvm run --trace-bus FILE` writes the traffic of a machine's VMBus; `synthvm trace show
//! FILE` prints it.

mod format;
mod reader;
mod show;
mod writer;

pub use reader::TraceError;
pub use show::{ShowError, show};
pub use writer::TraceFile;
pub(crate) use writer::TraceGuard;

#[cfg(test)]
mod tests;
