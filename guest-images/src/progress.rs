//! One line for each step that a person may have to wait for.

/// Says on stderr what is being done now. Stdout stays free for results.
pub fn step(what: &str) {
    eprintln!("  .. {what}");
}
