//! `synthvm memory`: the dynamic memory of a running machine.

use super::args::MemoryVerb;
use super::commands::{json, print};
use super::exit::{Exit, Failure};
use crate::control::{Client, Request};
use crate::dynamic_memory::MemoryReport;
use crate::inspect::render_memory;

pub(super) fn memory(verb: &MemoryVerb) -> Result<Exit, Failure> {
    match verb {
        MemoryVerb::Status { socket, json: is_json } => {
            let report: MemoryReport = Client::connect(socket)?.ask(&Request::MemoryStatus {})?;
            print(&if *is_json { json(&report, true)? } else { render_memory(&report) })?;
        }
        MemoryVerb::Set { socket, size } => {
            Client::connect(socket)?.request(&Request::MemorySet { size: *size })?;
        }
    }
    Ok(Exit::Success)
}
