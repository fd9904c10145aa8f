//! The terminal style of xtask's commands.

use std::io::IsTerminal;

/// Set for a part of a command whose output another part prints on a terminal.
pub(crate) const FORCED: &str = "CLICOLOR_FORCE";

/// Returns whether standard output is a terminal and the user wants styled output.
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
