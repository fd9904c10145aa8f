//! A benchmark as a program: its options, and the report of its numbers.

use std::process::ExitCode;

use crate::number::{self, Number};

/// Runs the benchmark `name`, and prints its error, if any.
pub(crate) fn main(name: &str, run: impl FnOnce(Options) -> Result<(), String>) -> ExitCode {
    match run(Options { words: std::env::args().skip(1).collect() }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench {name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures `passes` times. Returns the best value of each number. A disturbance may last longer
/// than one measurement, but hardly for all passes.
pub(crate) fn best_of(passes: usize, mut measure: impl FnMut() -> Vec<Number>) -> Vec<Number> {
    (1..passes).fold(measure(), |best, _| {
        best.into_iter().zip(measure()).map(|(one, other)| one.best(&other)).collect()
    })
}

/// The options that were given and not taken yet.
pub(crate) struct Options {
    words: Vec<String>,
}

impl Options {
    /// Takes the option `name`. Returns whether it was given.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let found = self.words.iter().position(|word| word == name);
        found.map(|at| self.words.remove(at)).is_some()
    }

    /// Takes the option `name` with its value. `None`: it was not given.
    ///
    /// # Errors
    /// It has no value.
    pub(crate) fn value(&mut self, name: &str) -> Result<Option<String>, String> {
        let Some(at) = self.words.iter().position(|word| word == name) else { return Ok(None) };
        if at + 1 == self.words.len() {
            return Err(format!("{name} needs a value"));
        }
        Ok(self.words.drain(at..at + 2).nth(1))
    }

    /// Takes the option `name` and all words after it. Returns these words.
    pub(crate) fn after(&mut self, name: &str) -> Option<Vec<String>> {
        let at = self.words.iter().position(|word| word == name)?;
        Some(self.words.drain(at..).skip(1).collect())
    }

    /// Measures, and prints the numbers or writes them to the file of `--json`. `known`: the end of
    /// the message about an unknown option.
    ///
    /// # Errors
    /// An option is unknown, the measurement failed, or the file cannot be written.
    pub(crate) fn report(
        mut self,
        known: &str,
        measure: impl FnOnce() -> Result<Vec<Number>, String>,
    ) -> Result<(), String> {
        let (wanted, json) = (self.flag("--bench"), self.value("--json")?);
        if let Some(other) = self.words.first() {
            return Err(format!("{other:?} is no option: {known}"));
        }
        // `cargo test --all-targets` also starts benchmarks, without this option, in slow builds.
        if !wanted {
            println!("nothing measured: use `cargo bench`");
            return Ok(());
        }
        let numbers = measure()?;
        match json {
            None => numbers.iter().for_each(|number| println!("{number}")),
            Some(file) => std::fs::write(&file, number::json(&numbers))
                .map_err(|error| format!("--json {file}: {error}"))?,
        }
        Ok(())
    }
}
