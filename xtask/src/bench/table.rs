//! Numbers for people and for programs.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// One measured number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Number {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) value: f64,
    /// The physical limit, measured in the same run.
    pub(super) limit: Option<f64>,
    /// `value / limit`.
    pub(super) ratio: Option<f64>,
    /// At most this much is wanted.
    pub(super) target: Option<f64>,
}

impl Number {
    pub(super) fn new(name: impl Into<String>, unit: &str, value: f64) -> Number {
        Number { name: name.into(), unit: unit.to_owned(), value, limit: None, ratio: None, target: None }
    }

    pub(super) fn target(mut self, target: f64) -> Number {
        self.target = Some(target);
        self
    }
}

/// Prints the numbers in columns, each with whether it meets its target.
pub(super) fn print(numbers: &[Number]) {
    let width = numbers.iter().map(|number| number.name.len()).max().unwrap_or_default();
    println!("{:width$}  {:>12}  {:<8}  {:>10}", "NAME", "VALUE", "UNIT", "TARGET");
    for number in numbers {
        let target = match number.target {
            Some(target) if number.value <= target => format!("{target} met"),
            Some(target) => format!("{target} MISSED"),
            None => String::new(),
        };
        println!("{:width$}  {:>12.2}  {:<8}  {target:>10}", number.name, number.value, number.unit);
    }
}

pub(super) fn write(numbers: &[Number], file: &Path) -> Result<(), String> {
    let text = serde_json::to_string_pretty(numbers).map_err(|error| error.to_string())?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let made = folder.map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(file, text + "\n"))
        .map_err(|error| format!("--json {}: {error}", file.display()))
}
