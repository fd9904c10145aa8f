//! Tests of the program as a process, by its exit status and its output.

mod config;
mod console;
mod control;
mod doctor;
mod documentation;
mod files;
mod firmware;
mod image;
mod network;
mod support;
mod tpm;
mod trace;
mod usage;
