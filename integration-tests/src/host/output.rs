//! Sinks of a command's output, and running a command on this machine.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;

use super::{HostError, HostOptions, INSIDE, OutputSink, RESULTS};

/// A sink to this process's standard output and standard error.
pub(super) struct PassThrough;

impl OutputSink for PassThrough {
    fn stdout(&mut self, bytes: &[u8]) {
        let mut out = io::stdout().lock();
        // A failed write is ignored: the command's exit status still matters.
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    }

    fn stderr(&mut self, bytes: &[u8]) {
        let _ = io::stderr().lock().write_all(bytes);
    }
}

enum Piece {
    Out(Vec<u8>),
    Err(Vec<u8>),
}

/// Runs a command on this machine, with the same limits as in an emulated host.
pub(super) fn run_here(
    argv: &[String],
    options: &HostOptions,
    sink: &mut dyn OutputSink,
) -> Result<i32, HostError> {
    let command_error = |e: &io::Error| HostError::Command {
        why: e.to_string(),
        not_found: e.kind() == io::ErrorKind::NotFound,
    };
    let Some((program, arguments)) = argv.split_first() else {
        return Err(HostError::Command { why: "no command was given".to_owned(), not_found: true });
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env(RESULTS, &options.results)
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| command_error(&e))?;
    let (sender, pieces) = mpsc::channel();
    if let Some(pipe) = child.stdout.take() {
        relay(pipe, sender.clone(), Piece::Out);
    }
    if let Some(pipe) = child.stderr.take() {
        relay(pipe, sender.clone(), Piece::Err);
    }
    drop(sender);
    loop {
        match pieces.recv_timeout(options.quiet_limit) {
            Ok(Piece::Out(bytes)) => sink.stdout(&bytes),
            Ok(Piece::Err(bytes)) => sink.stderr(&bytes),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                let _ = child.wait();
                let seconds = options.quiet_limit.as_secs();
                let why = "it ran on this machine".to_owned();
                return Err(HostError::Hung { seconds, why, console: String::new() });
            }
        }
    }
    let status = child.wait().map_err(|e| command_error(&e))?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

fn relay(mut pipe: impl Read + Send + 'static, to: Sender<Piece>, piece: fn(Vec<u8>) -> Piece) {
    thread::spawn(move || {
        let mut buffer = vec![0_u8; 64 << 10];
        while let Ok(n) = pipe.read(&mut buffer) {
            if n == 0 || to.send(piece(buffer[..n].to_vec())).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Kept(Vec<u8>, Vec<u8>);

    impl OutputSink for Kept {
        fn stdout(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
        fn stderr(&mut self, bytes: &[u8]) {
            self.1.extend_from_slice(bytes);
        }
    }

    fn here(script: &str, limit: Duration) -> (Result<i32, HostError>, Kept) {
        let options = HostOptions { quiet_limit: limit, ..HostOptions::default() };
        let mut kept = Kept::default();
        let argv = ["sh", "-c", script].map(str::to_owned);
        (run_here(&argv, &options, &mut kept), kept)
    }

    #[test]
    fn test_run_here_keeps_streams_apart_and_returns_the_status() {
        let (result, kept) = here("printf out; printf err >&2; exit 7", Duration::from_secs(60));
        assert_eq!(result.unwrap(), 7);
        assert_eq!((kept.0.as_slice(), kept.1.as_slice()), (b"out".as_slice(), b"err".as_slice()));
    }

    #[test]
    fn test_run_here_of_a_command_killed_by_a_signal_returns_128_more() {
        let (result, _) = here("kill -9 $$", Duration::from_secs(60));
        assert_eq!(result.unwrap(), 137);
    }

    #[test]
    fn test_run_here_of_a_silent_command_is_hung_not_failed() {
        let (result, _) = here("exec sleep 1000", Duration::from_millis(50));
        assert_eq!(result.unwrap_err().exit_code(), 124);
    }

    #[test]
    fn test_run_here_of_a_missing_program_is_127() {
        let argv = ["/no/such/program".to_owned()];
        let result = run_here(&argv, &HostOptions::default(), &mut Kept::default());
        assert_eq!(result.unwrap_err().exit_code(), 127);
    }
}
