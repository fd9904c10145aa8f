//! A simulator of power losses. It records the changes that a program makes to files, and rebuilds
//! every state that the files may have after a crash.
//!
//! Use in a test:
//!
//! 1. [`Recorder::new`]. Files are attached when they are opened: in the raw backend by
//!    `RawFile::record`, in the images crate's `ImageFile` by a recorder in its open options (tests
//!    only). Both make a [`Trace`], which records each write, zeroed range, change of length and
//!    fsync with the events of its issue and of its completion. Code with system calls of its own
//!    wraps them in [`Trace::record`].
//! 2. [`run_script`] runs [`Step`]s on the disk and returns [`Promises`]: the values that each
//!    sector may have at each position of the log. [`random_script`] makes a script. Tests with
//!    requests of their own call [`Promises::wrote`] and the like themselves.
//! 3. [`Recorder::log`] and [`Log::states`] return the states. [`State::write`] writes a state into
//!    a folder; the test opens the image in it, checks the structures, and calls
//!    [`Promises::judge`] with [`State::position`]. A [`State`] prints the changes that it kept,
//!    lost and tore.
//! 4. [`Log::without`] removes a barrier from a log. Each proof includes a test which shows that
//!    the states reveal the missing barrier.
//!
//! The model of the storage:
//!
//! * A sector of 512 bytes is written as a whole or not at all. After a crash it may have any of
//!   its contents since the last durable one. A write of several sectors may be torn in any way.
//!   Writes to different sectors are not ordered.
//! * A write of part of a sector goes through the page cache: the sector then contains all earlier
//!   changes of that sector.
//! * fsync and fdatasync make all changes durable that had completed before their issue, including
//!   the length. A durable write (RWF_DSYNC) makes its own bytes durable, and a file length that
//!   includes them.
//! * Punched and zeroed ranges and changes of the length are changes like others. Renames and new
//!   names are not modelled.

mod change;
mod contents;
mod promises;
mod record;
mod script;
mod states;
#[cfg(test)]
mod tests;

pub use change::Change;
pub use promises::{Promises, Span, content};
pub use record::{Log, Op, Recorder, Source, Ticket, Trace};
pub use script::{Step, random_script, run_script};
pub use states::{Limits, State, States};
