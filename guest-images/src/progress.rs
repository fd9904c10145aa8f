//! Progress for users: one line for each step, with a bar if standard error is a terminal. Standard
//! output is reserved for results.

use std::io::{self, IsTerminal};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// All bars of this process, so that lines are printed above them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// The template of a step of unknown length. The text is last, so that a narrow terminal truncates
/// it instead of breaking the line.
const SPINNER: &str = "  {spinner} {elapsed:>4}  {wide_msg}";

/// The template of a step of known length.
const BAR: &str = "  {spinner} {elapsed:>4}  [{bar:20}] {percent:>3} %  {wide_msg}";

/// The interval of redraws without progress, which update the elapsed time.
const TICK: Duration = Duration::from_millis(200);

/// Prints one line about the step that starts now.
pub fn step(what: &str) {
    line(&format!("  .. {what}"));
}

/// Prints one line on standard error.
pub fn line(text: &str) {
    if is_terminal() {
        // A closed terminal is no reason to stop.
        let _ = BARS.println(text);
    } else {
        eprintln!("{text}");
    }
}

/// Returns whether standard error is a terminal, on which bars are drawn.
fn is_terminal() -> bool {
    static TERMINAL: LazyLock<bool> = LazyLock::new(|| io::stderr().is_terminal());
    *TERMINAL
}

/// A step that takes time. On a terminal it is a bar, then one line when it is done; otherwise it
/// is one line when it starts.
#[derive(Debug)]
pub struct Task {
    what: String,
    start: Instant,
    bar: Option<ProgressBar>,
}

impl Task {
    /// Starts a step. `what` is a present participle with its object ("building synthvm").
    pub fn start(what: &str) -> Task {
        let bar = is_terminal().then(|| {
            let bar = BARS.add(ProgressBar::new_spinner());
            bar.set_style(style(SPINNER));
            bar.set_message(what.to_owned());
            bar.enable_steady_tick(TICK);
            bar
        });
        if bar.is_none() {
            step(what);
        }
        Task { what: what.to_owned(), start: Instant::now(), bar }
    }

    /// Shows that `done` of `total` units are done. `total` may change from call to call.
    pub fn set(&self, done: u64, total: u64) {
        let Some(bar) = self.bar.as_ref().filter(|_| total > 0) else { return };
        if bar.length() != Some(total) {
            bar.set_length(total);
            bar.set_style(style(BAR));
        }
        bar.set_position(done.min(total));
    }

    /// Ends a successful step: the bar becomes one line with its duration.
    pub fn finish(mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            line(&format!("  ok {} ({:.1} s)", self.what, self.start.elapsed().as_secs_f64()));
        }
    }
}

impl Drop for Task {
    /// Removes the bar of a step that failed. The caller shows the error.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants. An invalid one would only change the bar's appearance.
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ").tick_chars("-\\|/ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_templates_of_bars_are_understood() {
        for template in [SPINNER, BAR] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
