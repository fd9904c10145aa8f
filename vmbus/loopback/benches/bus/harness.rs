//! The command line and the output of a bench.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::number::{self, Number};

/// The words of a command line that are left.
pub(crate) type Words = dyn Iterator<Item = String>;

/// A bench with the options `O` of its own, beside `--json FILE`.
pub(crate) struct Bench<O> {
    /// The name, for messages.
    pub(crate) name: &'static str,
    /// The options for the message about an unknown one: "--json FILE is".
    pub(crate) usage: &'static str,
    /// Sets the option `word`, with values from the words behind it. Returns false for an unknown
    /// one.
    pub(crate) set: fn(&mut O, word: &str, words: &mut Words) -> Result<bool, String>,
    /// Measures all numbers.
    pub(crate) measure: fn(&O) -> Result<Vec<Number>, String>,
}

impl<O: Default> Bench<O> {
    /// Runs the bench with the words of this program's command line. Prints the numbers, or writes
    /// them to the file of `--json`.
    pub(crate) fn main(&self) -> ExitCode {
        report(self.name, self.run(&mut std::env::args().skip(1)))
    }

    fn run(&self, words: &mut Words) -> Result<(), String> {
        let (mut options, mut json, mut wanted) = (O::default(), None, false);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--bench" => wanted = true,
                "--json" => json = Some(PathBuf::from(value(&word, words)?)),
                other if (self.set)(&mut options, other, words)? => {}
                other => return Err(format!("{other:?} is no option: only {}", self.usage)),
            }
        }
        // `cargo test --all-targets` also starts benches, without this word, from slow builds.
        if !wanted {
            println!("nothing measured: use `cargo bench`");
            return Ok(());
        }
        let numbers = (self.measure)(&options)?;
        match json {
            None => numbers.iter().for_each(|number| println!("{number}")),
            Some(file) => std::fs::write(&file, number::json(&numbers))
                .map_err(|error| format!("--json {}: {error}", file.display()))?,
        }
        Ok(())
    }
}

/// Returns the value of the option `word`.
pub(crate) fn value(word: &str, words: &mut Words) -> Result<String, String> {
    words.next().ok_or_else(|| format!("{word} needs a value"))
}

/// Returns the best of `passes` measurements of the same numbers. A disturbance may outlast one
/// number, but hardly all passes.
pub(crate) fn best(passes: usize, measure: impl Fn() -> Vec<Number>) -> Vec<Number> {
    let mut numbers = measure();
    for _ in 1..passes {
        numbers = numbers.into_iter().zip(measure()).map(|(one, other)| one.best(&other)).collect();
    }
    numbers
}

/// Prints the error of the bench `name`, if there is one.
pub(crate) fn report(name: &str, result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench {name}: {error}");
            ExitCode::FAILURE
        }
    }
}
