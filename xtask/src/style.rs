//! How the project's own commands look on a terminal.

use std::io::IsTerminal;

/// Set for the part of a command whose output another part shows on a terminal.
pub(crate) const FORCED: &str = "CLICOLOR_FORCE";

/// Returns true when standard output is shown on a terminal and the user wants it styled.
pub(crate) fn is_styled() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && (set(FORCED) || std::io::stdout().is_terminal())
}

/// Prints a heading.
pub(crate) fn heading(text: &str) {
    if is_styled() {
        println!("\n\x1b[1m==> {text}\x1b[0m");
    } else {
        println!("\n==> {text}");
    }
}
