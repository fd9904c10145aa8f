//! Tests that docs/command-line.md agrees with the program.

use synthvm::cli::Exit;
use synthvm::config::{HypervOption, HypervPreset, KEYS};

const TEXT: &str = include_str!("../../../../docs/command-line.md");

/// Returns the row of a table that starts with this cell.
#[track_caller]
fn row(first: &str) -> &'static str {
    let start = format!("| {first} |");
    TEXT.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no row `{start}`"))
}

#[test]
fn test_documentation_has_every_key() {
    for key in KEYS {
        row(&format!("`{key}`"));
    }
}

#[test]
fn test_documentation_has_every_hyperv_option_with_its_presets() {
    let word = |preset: HypervPreset, option| if preset.offers(option) { "on" } else { "off" };
    for option in HypervOption::ALL {
        let row = row(&format!("`{}`", option.name()));
        let (linux, windows) =
            (word(HypervPreset::Linux, *option), word(HypervPreset::Windows, *option));
        assert!(row.contains(&format!("| {linux} | {windows} |")), "{row}");
    }
}

#[test]
fn test_documentation_has_every_exit_status() {
    for exit in Exit::ALL {
        row(&exit.code().to_string());
    }
}
