//! The zero-copy core in one process: GPADLs, views and rings, each beside a physical limit measured in the same run. Needs no KVM.

use std::path::Path;
use std::process::{Command, Stdio};

use super::Output;
use super::table::{self, Number};

/// Where the bench leaves its numbers, below the workspace.
const NUMBERS: &str = "target/bench-core.json";

pub(super) fn main(output: &Output) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("xtask has no parent folder")?;
    let file = root.join(NUMBERS);
    // What an earlier run left must not be taken for this one's.
    let _ = std::fs::remove_file(&file);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["bench", "-p", "vmbus-loopback", "--bench", "core", "--", "--json"]).arg(&file);
    let status = command.current_dir(root).stdin(Stdio::null()).status();
    let status = status.map_err(|error| format!("starting cargo bench: {error}"))?;
    if !status.success() {
        return Err(format!("cargo bench ended with {status}"));
    }
    let text = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let numbers: Vec<Number> =
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    table::print(&numbers);
    output.json.as_deref().map_or(Ok(()), |file| table::write(&numbers, file))
}
