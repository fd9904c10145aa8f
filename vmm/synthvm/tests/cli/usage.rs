//! Tests of the grammar: unknown, repeated and malformed words.

use crate::support::Scratch;

#[test]
fn test_option_unknown_is_named_with_the_nearest_and_all_known_ones() {
    let scratch = Scratch::new();
    scratch.refuses(
        &["run", "--memroy", "1G"],
        2,
        &["`--memroy`", "did you mean `--memory`?", "--disk", "--serial2"],
    );
    scratch.refuses(&["run", "--zzz=1"], 2, &["unknown option `--zzz`", "known: --profile"]);
    scratch.refuses(
        &["inspect", "sock", "--jsno"],
        2,
        &["did you mean `--json`?", "synthvm inspect --help"],
    );
    scratch.refuses(&["rnu"], 2, &["did you mean `run`?", "doctor"]);
    scratch.refuses(
        &["control", "sock", "explode"],
        2,
        &["`explode`", "power-button, reset, stop"],
    );
}

#[test]
fn test_option_doubled_is_named() {
    let scratch = Scratch::new();
    for option in ["--kernel", "--memory", "--cpus", "--serial", "--control", "--irqchip", "--kvm"]
    {
        scratch.refuses(&["run", option, "1", option, "1"], 2, &[option, "given twice"]);
    }
    scratch.refuses(
        &["run", "--kernel", "k", "--disk", "a,lun=1,lun=2"],
        2,
        &["--disk a,lun=1,lun=2", "`lun`", "twice"],
    );
    scratch.refuses(
        &["run", "--kernel", "k", "--hyperv", "linux", "--hyperv", "windows"],
        2,
        &["--hyperv", "twice"],
    );
}

#[test]
fn test_option_without_its_value_is_named() {
    let scratch = Scratch::new();
    scratch.refuses(&["run", "--memory"], 2, &["--memory needs a value", "synthvm run --help"]);
    scratch.refuses(&["inspect"], 2, &["<SOCK>", "synthvm inspect --help"]);
    scratch.refuses(&["control", "sock"], 2, &["power-button"]);
    scratch.refuses(&[], 2, &["run, doctor, inspect, metrics, control"]);
    scratch.refuses(&["run", "a.toml", "b.toml"], 2, &["`b.toml`"]);
}

#[test]
fn test_value_malformed_names_option_value_and_what_fits() {
    let scratch = Scratch::new();
    let cases: &[(&[&str], &[&str])] = &[
        (&["--memory", "1X"], &["--memory 1X", "512M"]),
        (&["--memory", "1M"], &["--memory 1M", "too small", "16M"]),
        (&["--memory", "-1"], &["--memory"]),
        (&["--cpus", "65"], &["--cpus 65", "1 to 64"]),
        (&["--cpus", "-2"], &["--cpus -2", "a whole number"]),
        (&["--serial", "tty"], &["--serial tty", "null, stdio, file, socket"]),
        (&["--disk", "a,ro"], &["--disk a,ro", "unknown key `ro`", "readonly"]),
        (&["--hyperv", "preset=mac"], &["--hyperv preset=mac", "linux, windows"]),
        (&["--disk", "a\nb,x=1"], &["unknown key `x`"]),
    ];
    for (words, parts) in cases {
        let line = [&["run", "--kernel", "k"], *words].concat();
        scratch.refuses(&line, 2, parts);
    }
}

#[test]
fn test_help_shows_groups_examples_and_exit_statuses_in_100_columns() {
    let scratch = Scratch::new();
    let help = scratch.accepts(&["run", "--help"]);
    for part in [
        "Boot:",
        "Disks:",
        "Consoles and control:",
        "Examples:",
        "--disk path=b.img,controller=1",
        "128+N",
    ] {
        assert!(help.contains(part), "{part} is not in:\n{help}");
    }
    assert!(scratch.accepts(&["--help"]).contains("the host lacks a required feature"));
    for line in help.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

#[test]
fn test_version_is_that_of_the_package() {
    assert_eq!(
        Scratch::new().accepts(&["--version"]),
        format!("synthvm {}\n", env!("CARGO_PKG_VERSION"))
    );
}
