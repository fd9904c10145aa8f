//! The bus's shell: who handles what in which order, devices of every temper, events and doorbells.

#[path = "../common/mod.rs"]
mod common;

mod devices;
mod log;
mod pause;
mod queueing;
mod resets;
mod signals;
