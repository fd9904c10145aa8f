//! A simulator of power losses: records what a program does to files, and rebuilds every state that
//! they may be in after a crash.
//!
//! How a test uses it:
//!
//! 1. [`Recorder::new`]. Files are attached where they are opened: the raw backend by
//!    `RawFile::record`, the images crate's `ImageFile` by a recorder in its open options (tests
//!    only). Both make a [`Trace`], which records each write, zeroed range, change of length and
//!    fsync with the events of its issue and of its completion. Code with system calls of its own
//!    wraps them in [`Trace::record`].
//! 2. [`run_script`] runs [`Step`]s on the disk and returns [`Promises`]: the values that each
//!    sector may have at each position of the log. [`random_script`] makes a script. Tests with
//!    requests of their own call [`Promises::wrote`] and the like themselves.
//! 3. [`Recorder::log`] and [`Log::states`] give the states. [`State::write`] writes one into a
//!    folder; the test opens it, checks the structures, and calls [`Promises::judge`] with
//!    [`State::position`]. A [`State`] prints which changes it kept, lost and tore.
//! 4. [`Log::without`] takes a barrier out of a log. A test that shows that the states tell is part
//!    of each proof.
//!
//! The model of the storage:
//!
//! * A sector of 512 bytes is written as a whole or not at all. Its contents since the last durable
//!   one may each be what is found; a write of several sectors may be torn in any way. Writes to
//!   different sectors are not ordered.
//! * A write of part of a sector goes through the page cache: the sector then contains all earlier
//!   changes of that sector.
//! * fsync and fdatasync make durable what had completed before they were issued, length included.
//!   A durable write (RWF_DSYNC) makes its own bytes durable, and that the file reaches up to them.
//! * Punched and zeroed ranges and changes of the length are changes like others. Renames and new
//!   names are not modelled.

mod contents;
mod promises;
mod record;
mod script;
mod states;
#[cfg(test)]
mod tests;

pub use promises::{Promises, Span, content};
pub use record::{Change, Log, Op, Recorder, Source, Ticket, Trace};
pub use script::{Step, random_script, run_script};
pub use states::{Limits, State, States};
