//! The numbers of both machines, for people and for programs.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// A number of both machines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    /// Load, vCPUs and measurement, such as `randread_4k_qd32_1vcpu_iops`.
    pub(super) case: String,
    pub(super) unit: String,
    pub(super) synthvm: f64,
    pub(super) peer: f64,
    /// At least 1 if SynthVM is as good or better.
    pub(super) ratio: f64,
}

/// The better direction of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    More,
    Less,
}

impl Row {
    /// Returns a row. In the ratio, values below `least` count as `least`, because they cannot be
    /// distinguished from 0.
    pub(super) fn new(
        case: String,
        unit: &str,
        [synthvm, peer]: [f64; 2],
        better: Better,
        least: f64,
    ) -> Row {
        let (ours, theirs) = (synthvm.max(least), peer.max(least));
        let ratio = match better {
            Better::More => ours / theirs,
            Better::Less => theirs / ours,
        };
        Row {
            case,
            unit: unit.to_owned(),
            synthvm: digits(synthvm),
            peer: digits(peer),
            ratio: digits(ratio),
        }
    }
}

/// Rounds to four digits; further ones are noise.
fn digits(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10_f64.powf(3.0 - value.abs().log10().floor());
    (value * scale).round() / scale
}

/// Returns the median of a number of the rounds.
pub(super) fn middle<T>(runs: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints the rows in columns.
pub(super) fn print(rows: &[Row]) {
    let width = rows.iter().map(|row| row.case.len()).max().unwrap_or_default();
    println!("{:width$}  {:>12}  {:>12}  {:>7}  UNIT", "CASE", "SYNTHVM", "QEMU", "RATIO");
    for Row { case, unit, synthvm, peer, ratio } in rows {
        let mark = if *ratio < 1.0 { "  < 1" } else { "" };
        println!("{case:width$}  {synthvm:>12}  {peer:>12}  {ratio:>7.2}  {unit}{mark}");
    }
}

/// Writes the rows as a JSON array.
pub(super) fn write(rows: &[Row], file: &Path) -> Result<(), String> {
    let text = serde_json::to_string_pretty(rows).map_err(|error| error.to_string())?;
    write_text(file, &(text + "\n")).map_err(|error| format!("--json {}: {error}", file.display()))
}

/// Writes a file and makes its folder.
pub(super) fn write_text(file: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(file, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_ratio_above_one_is_better_whatever_is_wanted() {
        let more = Row::new("a".into(), "1/s", [30.0, 20.0], Better::More, 0.0);
        let less = Row::new("b".into(), "us", [20.0, 30.0], Better::Less, 0.0);
        assert_eq!((more.ratio, less.ratio), (1.5, 1.5));
    }

    #[test]
    fn test_ratio_to_nothing_is_a_number() {
        let row = Row::new("a".into(), "exits", [0.0, 0.5], Better::Less, 0.001);
        assert_eq!((row.synthvm, row.ratio), (0.0, 500.0));
        assert_eq!(Row::new("a".into(), "exits", [0.0, 0.0], Better::Less, 0.001).ratio, 1.0);
    }

    #[test]
    fn test_digits_keeps_four() {
        assert_eq!(digits(123_456.7), 123_500.0);
        assert_eq!(digits(0.000_123_456), 0.000_123_5);
        assert_eq!(digits(0.0), 0.0);
    }
}
