//! A dialogue with a guest on its serial console: wait for text, send keys.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of the transcript that an error shows.
const TAIL: usize = 4 << 10;

/// The reason for which a dialogue cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The text did not appear in time.
    #[error(
        "{text:?} did not appear within {} s; the end of the console:\n{tail}",
        .limit.as_secs()
    )]
    Silent {
        /// The awaited text.
        text: String,
        /// The timeout.
        limit: Duration,
        /// The end of the transcript.
        tail: String,
    },
    /// The machine closed the console.
    #[error("the console closed while waiting for {text:?}; its end:\n{tail}")]
    Closed {
        /// The awaited text.
        text: String,
        /// The end of the transcript.
        tail: String,
    },
    /// A command in the guest's shell failed.
    #[error("in the guest, {command:?} ended with {status}:\n{output}")]
    Command {
        /// The command.
        command: String,
        /// Its exit status.
        status: String,
        /// Its output.
        output: String,
    },
    /// Keys cannot be sent.
    #[error("sending keys to the console: {0}")]
    Send(#[from] io::Error),
}

/// A guest's console.
#[derive(Debug)]
pub struct Console {
    stream: UnixStream,
    shared: Arc<Shared>,
    /// The end of the text that was waited for last, as a position in the transcript.
    seen: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    transcript: String,
    closed: bool,
}

impl Console {
    /// Returns a console on a connected socket.
    pub fn new(stream: UnixStream) -> io::Result<Console> {
        let reader = stream.try_clone()?;
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        thread::spawn(move || read(reader, &writer));
        Ok(Console { stream, shared, seen: 0 })
    }

    /// Waits until a text has appeared after the one that was waited for last. Returns what came
    /// before it.
    ///
    /// # Errors
    /// The text does not appear in time, or the machine ends.
    pub fn wait(&mut self, text: &str, limit: Duration) -> Result<String, ConsoleError> {
        self.wait_any(&[text], limit).map(|(_, before)| before)
    }

    /// Waits for any of several texts like [`Console::wait`]. Also returns the index of the text
    /// that appeared first.
    ///
    /// # Errors
    /// No text appears in time, or the machine ends.
    pub fn wait_any(
        &mut self,
        texts: &[&str],
        limit: Duration,
    ) -> Result<(usize, String), ConsoleError> {
        let end = Instant::now() + limit;
        let mut state = self.shared.lock();
        loop {
            let new = state.transcript.get(self.seen..).unwrap_or_default();
            let found = texts.iter().enumerate().filter_map(|(i, text)| Some((new.find(text)?, i)));
            if let Some((at, index)) = found.min() {
                let before = new[..at].to_owned();
                self.seen += at + texts[index].len();
                return Ok((index, before));
            }
            let (text, tail) = (texts.join("\" or \""), tail(&state.transcript).to_owned());
            let left = end.saturating_duration_since(Instant::now());
            if state.closed {
                return Err(ConsoleError::Closed { text, tail });
            }
            if left.is_zero() {
                return Err(ConsoleError::Silent { text, limit, tail });
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends keys.
    ///
    /// # Errors
    /// The machine has ended.
    pub fn send(&mut self, keys: &str) -> Result<(), ConsoleError> {
        Ok(self.stream.write_all(keys.as_bytes())?)
    }

    /// Runs a command in a shell of Unix, which shows `prompt` before and afterwards. Returns the
    /// command's output.
    ///
    /// # Errors
    /// The command fails, or does not end in time.
    pub fn run(
        &mut self,
        command: &str,
        prompt: &str,
        limit: Duration,
    ) -> Result<String, ConsoleError> {
        self.send(&format!("{command}; echo =$?=\n"))?;
        // The terminal repeats the line first.
        self.wait("=$?=\n", limit)?;
        let output = self.wait("=\n", limit)?;
        self.wait(prompt, limit)?;
        let (output, status) = output.rsplit_once('=').unwrap_or((&output, "an unknown status"));
        match status {
            "0" => Ok(output.to_owned()),
            status => Err(ConsoleError::Command {
                command: command.to_owned(),
                status: status.to_owned(),
                output: output.to_owned(),
            }),
        }
    }

    /// Returns all text of the console until now, without the codes that control a terminal.
    #[must_use]
    pub fn transcript(&self) -> String {
        self.shared.lock().transcript.clone()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(mut stream: UnixStream, shared: &Shared) {
    let (mut plain, mut bytes) = (Plain::default(), [0; 4096]);
    loop {
        let length = match stream.read(&mut bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        let mut state = shared.lock();
        state.closed = length == 0;
        let text = &mut state.transcript;
        bytes[..length].iter().filter_map(|byte| plain.next(*byte)).for_each(|c| text.push(c));
        drop(state);
        shared.changed.notify_all();
        if length == 0 {
            return;
        }
    }
}

fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(TAIL);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// Removes the codes that control a terminal (ECMA-48 5.4 and 5.6), and carriage returns.
#[derive(Debug, Default)]
struct Plain {
    inside: Code,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Code {
    #[default]
    None,
    /// After ESC.
    Escape,
    /// A sequence that ends with a byte from `@` to `~`.
    Sequence,
    /// A string that ends with BEL or ESC \.
    String,
}

impl Plain {
    /// Returns the character of a byte. Bytes that are not ASCII become a question mark.
    fn next(&mut self, byte: u8) -> Option<char> {
        match (self.inside, byte) {
            (_, 0x1B) => self.inside = Code::Escape,
            (Code::None, b'\n' | b'\t' | b' '..=b'~') => return Some(byte.into()),
            (Code::None, 0x80..) => return Some('?'),
            (Code::None, _) => {}
            (Code::Escape, b'[') => self.inside = Code::Sequence,
            (Code::Escape, b']') => self.inside = Code::String,
            (Code::Escape, _) | (Code::Sequence, b'@'..=b'~') | (Code::String, 0x07) => {
                self.inside = Code::None;
            }
            (Code::Sequence | Code::String, _) => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn pair() -> (Console, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Console::new(ours).unwrap(), theirs)
    }

    #[test]
    fn test_wait_finds_each_text_once_and_returns_what_came_before() {
        let (mut console, mut guest) = pair();
        guest.write_all(b"one\r\ntwo two\r\n").unwrap();
        assert_eq!(console.wait("two", LIMIT).unwrap(), "one\n");
        assert_eq!(console.wait_any(&["three", "two"], LIMIT).unwrap(), (1, " ".to_owned()));
        let error = console.wait("two", Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("one\ntwo two"), "{error}");
    }

    #[test]
    fn test_wait_ignores_the_codes_of_a_terminal() {
        let (mut console, mut guest) = pair();
        guest.write_all(b"\x1b[1;31mSh\x1b[0mell\x1b]104\x07>\x1b[?25h \xe2").unwrap();
        console.wait("Shell> ?", LIMIT).unwrap();
    }

    #[test]
    fn test_wait_for_a_machine_that_ends_shows_its_last_words() {
        let (mut console, mut guest) = pair();
        guest.write_all(b"no boot device").unwrap();
        drop(guest);
        let error = console.wait("login:", LIMIT).unwrap_err();
        assert!(matches!(error, ConsoleError::Closed { .. }), "{error}");
        assert!(error.to_string().contains("no boot device"), "{error}");
    }

    #[test]
    fn test_run_returns_the_output_and_refuses_a_failed_command() {
        let (mut console, mut guest) = pair();
        let answer = b"true; echo =$?=\r\nsome\r\n=0=\r\n# false; echo =$?=\r\nno\r\n=1=\r\n# ";
        guest.write_all(answer).unwrap();
        assert_eq!(console.run("true", "# ", LIMIT).unwrap(), "some\n");
        let error = console.run("false", "# ", LIMIT).unwrap_err().to_string();
        assert!(error.contains("\"false\" ended with 1"), "{error}");
    }
}
