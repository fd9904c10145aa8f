//! Measured numbers, and their output for people and for programs.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// A measured number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Number {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) value: f64,
    /// The physical limit, measured in the same run.
    pub(super) limit: Option<f64>,
    /// `value / limit`.
    pub(super) ratio: Option<f64>,
    /// The largest acceptable value.
    pub(super) target: Option<f64>,
}

impl Number {
    pub(super) fn new(name: impl Into<String>, unit: &str, value: f64) -> Number {
        Number {
            name: name.into(),
            unit: unit.to_owned(),
            value,
            limit: None,
            ratio: None,
            target: None,
        }
    }

    pub(super) fn target(mut self, target: f64) -> Number {
        self.target = Some(target);
        self
    }
}

/// Prints the numbers in columns, each with its physical limit and whether it meets its target.
pub(super) fn print(numbers: &[Number]) {
    let width = numbers.iter().map(|number| number.name.len()).max().unwrap_or_default();
    let row = |name: &str, columns: [&str; 5]| {
        let [value, unit, limit, ratio, target] = columns;
        println!("{name:width$}  {value:>12}  {unit:<8}  {limit:>10}  {ratio:>7}  {target:>10}");
    };
    row("NAME", ["VALUE", "UNIT", "LIMIT", "RATIO", "TARGET"]);
    let word =
        |number: Option<f64>| number.map(|number| format!("{number:.2}")).unwrap_or_default();
    for number in numbers {
        let target = match number.target {
            Some(target) if number.value <= target => format!("{target} met"),
            Some(target) => format!("{target} MISSED"),
            None => String::new(),
        };
        let [value, limit, ratio] = [Some(number.value), number.limit, number.ratio].map(word);
        row(&number.name, [&value, &number.unit, &limit, &ratio, &target]);
    }
}

pub(super) fn write(numbers: &[Number], file: &Path) -> Result<(), String> {
    let text = serde_json::to_string_pretty(numbers).map_err(|error| error.to_string())?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let made = folder.map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(file, text + "\n"))
        .map_err(|error| format!("--json {}: {error}", file.display()))
}
