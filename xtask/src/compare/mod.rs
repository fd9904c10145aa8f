//! `cargo xtask compare WHAT --json FILE`: compares SynthVM with the usual alternative on KVM, in
//! one run.

mod cases;
mod cost;
mod fio;
mod medium;
mod plot;
mod progress;
mod round;
mod rows;
mod side;
mod storage;

/// The comparison to make.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum What {
    /// Compare a VMBus disk with QEMU's virtio-blk: the same guest and the same fio on both
    /// machines, in alternation.
    Storage(storage::Arguments),
}

pub(crate) fn main(what: &What) -> Result<(), String> {
    let What::Storage(arguments) = what;
    storage::main(arguments)
}
