//! Runs programs with a timeout.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use guest_report::agent::Output;

use crate::{Outcome, context};

/// The limit of a program's output in bytes: the report port is slow.
const OUTPUT_LIMIT: usize = 64 << 10;

/// Runs a program until its end.
///
/// # Errors
/// The program cannot be started, or does not end in time and is killed.
pub fn run<S: AsRef<str>>(argv: &[S], limit: Duration) -> Outcome<Output> {
    let words: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
    let Some((program, arguments)) = words.split_first() else {
        return Err("no program was named".to_owned());
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(context(program))?;
    let end = Instant::now() + limit;
    let out = collect(child.stdout.take());
    let err = collect(child.stderr.take());
    let mut texts = Vec::new();
    for pipe in [out, err] {
        let Ok(bytes) = pipe.recv_timeout(end.saturating_duration_since(Instant::now())) else {
            // The whole group is killed: a shell's children hold the pipes too.
            let group = i32::try_from(child.id()).unwrap_or(0);
            // SAFETY: kill takes no pointer; the group is the child's own and the child is not
            // reaped yet.
            unsafe { libc::kill(-group, libc::SIGKILL) };
            let _ = child.wait();
            return Err(format!("{program} was killed after {} s", limit.as_secs()));
        };
        texts.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    let status = child.wait().map_err(context(program))?;
    let stderr = texts.pop().unwrap_or_default();
    let stdout = texts.pop().unwrap_or_default();
    let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(Output { status, stdout, stderr })
}

/// Runs a program like [`run`]. An exit status other than 0 is an error that contains the output.
pub fn run_ok<S: AsRef<str>>(argv: &[S], limit: Duration) -> Outcome<String> {
    let output = run(argv, limit)?;
    if output.status == 0 {
        return Ok(output.stdout);
    }
    let words: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
    Err(format!(
        "{} ended with {}: {}{}",
        words.join(" "),
        output.status,
        output.stdout,
        output.stderr
    ))
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.by_ref().take(OUTPUT_LIMIT as u64).read_to_end(&mut bytes);
            // The rest is read and dropped, so that the program does not block.
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
        let _ = sender.send(bytes);
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_run_returns_status_and_both_streams() {
        let output =
            run(&["sh", "-c", "echo a; echo b >&2; exit 3"], Duration::from_secs(60)).unwrap();
        assert_eq!(
            output,
            Output { status: 3, stdout: "a\n".to_owned(), stderr: "b\n".to_owned() }
        );
    }

    #[test]
    fn test_run_past_its_limit_is_killed_with_its_children() {
        let error =
            run(&["sh", "-c", "sleep 1000 & sleep 1000"], Duration::from_millis(20)).unwrap_err();
        assert!(error.contains("was killed"), "{error}");
    }

    #[test]
    fn test_run_with_a_flood_of_output_is_cut_and_ends() {
        let output = run(&["head", "-c", "1000000", "/dev/zero"], Duration::from_secs(60)).unwrap();
        assert_eq!((output.status, output.stdout.len()), (0, OUTPUT_LIMIT));
    }

    #[test]
    fn test_run_ok_of_a_failing_program_shows_its_words() {
        let error =
            run_ok(&["sh", "-c", "echo why >&2; exit 1"], Duration::from_secs(60)).unwrap_err();
        assert!(error.contains("why"), "{error}");
        assert!(run_ok(&["/no/such"], Duration::from_secs(1)).is_err());
    }
}
