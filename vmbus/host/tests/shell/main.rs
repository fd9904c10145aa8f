//! The bus's shell: the order of handling and its threads, devices of every kind, events and
//! doorbells.

#[path = "../common/mod.rs"]
mod common;

mod devices;
mod log;
mod pause;
mod queueing;
mod resets;
mod signals;
