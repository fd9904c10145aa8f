//! Benches that are separate programs (`cargo bench`) and write their numbers to a file.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use guest_images::cache::Cache;
use guest_images::packages::Packages;

use super::Output;
use super::table::{self, Number};

/// The suite of the valgrind package: another version could count differently.
const SUITE: &str = "bookworm";

/// A bench in its own program.
pub(super) struct InProcess {
    command: Command,
    numbers: PathBuf,
}

impl InProcess {
    /// Returns the bench `bench` of `package`.
    pub(super) fn new(package: &str, bench: &str) -> Result<InProcess, String> {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("xtask has no parent folder")?;
        let numbers = root.join(format!("target/bench-{bench}.json"));
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["bench", "-p", package, "--bench", bench, "--", "--json"]).arg(&numbers);
        command.current_dir(root).stdin(Stdio::null());
        Ok(InProcess { command, numbers })
    }

    /// Adds an argument for the program.
    pub(super) fn argument(mut self, word: &str) -> InProcess {
        self.command.arg(word);
        self
    }

    /// Counts instructions with callgrind, from a package that is unpacked but not installed.
    pub(super) fn valgrind(mut self) -> Result<InProcess, String> {
        let valgrind = Packages::new(&Cache::project(), SUITE)
            .get("valgrind")
            .map_err(|error| error.to_string())?;
        self.command.env("SYNTHVM_VALGRIND", valgrind.root.join("usr/bin/valgrind.bin"));
        self.command.env("VALGRIND_LIB", valgrind.root.join("usr/libexec/valgrind"));
        Ok(self)
    }

    /// Runs the bench, prints its numbers and writes them according to `output`.
    pub(super) fn run(self, output: &Output) -> Result<(), String> {
        self.numbers(output).map(drop)
    }

    /// Runs the bench as [`InProcess::run`] does, and returns its numbers.
    pub(super) fn numbers(mut self, output: &Output) -> Result<Vec<Number>, String> {
        let file = &self.numbers;
        // The results of an earlier run must not count for this one.
        let _ = std::fs::remove_file(file);
        let status =
            self.command.status().map_err(|error| format!("starting cargo bench: {error}"))?;
        if !status.success() {
            return Err(format!("cargo bench ended with {status}"));
        }
        let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let numbers: Vec<Number> = serde_json::from_slice(&text)
            .map_err(|error| format!("{}: {error}", file.display()))?;
        table::print(&numbers);
        output.json.as_deref().map_or(Ok(()), |file| table::write(&numbers, file))?;
        Ok(numbers)
    }
}
