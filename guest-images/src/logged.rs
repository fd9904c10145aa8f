//! Programs whose output goes to a log: users see it only if the program fails.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::time::Duration;

use crate::Error;
use crate::cache::Cache;
use crate::progress::Task;

/// Number of lines of a failed program's output that its error shows.
const TAIL_LINES: usize = 12;

/// Logs that were not appended to in this time are removed.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);

/// The folder of logs in the cache.
const FOLDER: &str = "logs";

/// The action on a line of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Write the line to the log.
    Keep,
    /// Drop the line, which reports only progress.
    Drop,
}

/// Runs a program until its end. Both streams of its output go line by line to `on_line` and to the
/// log of this process in the cache. `doing` is the purpose for an error ("unpacking a package").
///
/// # Errors
/// The program cannot be started, or fails: the error has the last lines and the log's path.
pub fn run(
    cache: &Cache,
    command: &mut Command,
    doing: &str,
    mut on_line: impl FnMut(&str) -> Line,
) -> Result<(), Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let start = |source: io::Error| Error::Start { program: program.clone(), source };
    let (output, input) = io::pipe().map_err(start)?;
    let mut log = Log::open(cache);
    log.write(&format!("\n$ {command:?}"));
    command.stdin(Stdio::null()).stdout(input.try_clone().map_err(start)?).stderr(input);
    let child = command.spawn();
    // The command keeps its ends of the pipe, so the end of the output would not be seen.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.map_err(start)?;
    let mut tail = VecDeque::new();
    lines(output, |text| {
        if on_line(text) == Line::Drop {
            return;
        }
        log.write(text);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text.to_owned());
    });
    let status = child.wait().map_err(start)?;
    if status.success() {
        return Ok(());
    }
    let (tail, log) = (Vec::from(tail).join("\n    "), log.path());
    let said = format!("its last lines:\n    {tail}\nall that it printed: {log}");
    Err(Error::Program { program, status: status.to_string(), doing: doing.to_owned(), said })
}

/// Runs a cargo command like [`run`], and shows its progress on `task`.
///
/// # Errors
/// The errors of [`run`].
pub fn cargo(cache: &Cache, command: &mut Command, doing: &str, task: &Task) -> Result<(), Error> {
    // Cargo reports the number of finished units only in its bar.
    command
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        .env("CARGO_TERM_PROGRESS_WIDTH", "100")
        .env("CARGO_TERM_COLOR", "never");
    run(cache, command, doing, |line| match cargo_progress(line) {
        Some((done, total)) => {
            task.set(done, total);
            Line::Drop
        }
        None => Line::Keep,
    })
}

/// Parses cargo's bar: `Building [===>   ] 34/143: syn, serde`.
fn cargo_progress(line: &str) -> Option<(u64, u64)> {
    let (_, counts) = line.trim_start().strip_prefix("Building [")?.split_once("] ")?;
    let (done, rest) = counts.split_once('/')?;
    let total: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((done.trim().parse().ok()?, total.parse().ok()?))
}

/// Passes each line of a program's output to `on_line` as it arrives, until its end. A carriage
/// return also ends a line, because programs draw their bars with it. Blank lines are omitted.
fn lines(mut output: impl Read, mut on_line: impl FnMut(&str)) {
    let mut give = |line: &mut Vec<u8>| {
        let text = String::from_utf8_lossy(line);
        if !text.trim().is_empty() {
            on_line(text.trim_end());
        }
        line.clear();
    };
    let (mut buffer, mut line) = (vec![0; 8 << 10], Vec::new());
    loop {
        match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                for byte in buffer.iter().take(length) {
                    match byte {
                        b'\r' | b'\n' => give(&mut line),
                        byte => line.push(*byte),
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    give(&mut line);
}

/// The log of this process. If it cannot be written, the program runs without it.
struct Log {
    file: Option<(File, PathBuf)>,
}

impl Log {
    fn open(cache: &Cache) -> Log {
        let open = || -> Option<(File, PathBuf)> {
            let path = cache.dir(FOLDER).ok()?.join(format!("{}.log", process::id()));
            if !path.exists() {
                cache.remove_older(FOLDER, UNUSED);
            }
            let file = fs::OpenOptions::new().create(true).append(true).open(&path).ok()?;
            Some((file, path))
        };
        Log { file: open() }
    }

    fn path(&self) -> String {
        self.file.as_ref().map_or_else(
            || "lost, because no log could be written".to_owned(),
            |(_, path)| path.display().to_string(),
        )
    }

    fn write(&mut self, line: &str) {
        if let Some((file, _)) = &mut self.file {
            // An error is ignored: a full disk also causes an error of the program.
            let _ = writeln!(file, "{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::cache;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn test_run_of_a_failing_program_shows_its_last_lines_and_the_log() {
        let cache = cache("fails");
        let script = "for i in $(seq 30); do echo out $i; done; echo why >&2; exit 3";
        let error =
            run(&cache, &mut shell(script), "trying", |_| Line::Keep).unwrap_err().to_string();
        assert!(error.contains("while trying") && error.contains("exit status: 3"), "{error}");
        assert!(error.contains("out 30\n    why"), "{error}");
        assert!(!error.contains("out 10\n"), "only the end: {error}");
        let path = error.lines().last().unwrap().split(": ").nth(1).unwrap();
        let log = fs::read_to_string(path).unwrap();
        assert!(log.contains("out 1\n") && log.contains("why\n"), "all of it: {log}");
        fs::remove_dir_all(cache.root()).unwrap();
    }

    #[test]
    fn test_run_gives_each_line_out_and_logs_what_is_kept() {
        let cache = cache("lines");
        let mut seen = Vec::new();
        let on_line = |line: &str| {
            seen.push(line.to_owned());
            if line.starts_with("bar") { Line::Drop } else { Line::Keep }
        };
        run(&cache, &mut shell("printf 'bar 1\\rbar 2\\rdone\\n'; echo more"), "x", on_line)
            .unwrap();
        assert_eq!(seen, ["bar 1", "bar 2", "done", "more"]);
        let log =
            fs::read_to_string(cache.root().join(format!("logs/{}.log", process::id()))).unwrap();
        assert!(log.contains("done\nmore\n") && !log.contains("bar 1\n"), "{log}");
        fs::remove_dir_all(cache.root()).unwrap();
    }

    #[test]
    fn test_cargo_progress_is_read_from_its_bar_only() {
        assert_eq!(
            cargo_progress("    Building [=====>     ] 34/143: syn, serde"),
            Some((34, 143))
        );
        assert_eq!(cargo_progress("    Building [===] 7/9(1 job)"), Some((7, 9)));
        for other in ["   Compiling syn v2.0.1", "    Building [", "Building [] x/y", ""] {
            assert_eq!(cargo_progress(other), None, "{other}");
        }
    }

    #[test]
    fn test_run_of_a_missing_program_names_it() {
        let cache = cache("none");
        let error = run(&cache, &mut Command::new("/no/such"), "x", |_| Line::Keep).unwrap_err();
        assert!(error.to_string().contains("/no/such"), "{error}");
        std::fs::remove_dir_all(cache.root()).unwrap();
    }
}
