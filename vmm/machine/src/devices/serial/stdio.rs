//! The terminal as a port's input.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};

use super::pump::{Pumped, is_ready, pump};
use super::{RawTerminal, SerialPort};

/// A command that the user gives with Ctrl-A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// Ctrl-A x: stop the machine immediately.
    Stop,
    /// Ctrl-A p: press the power button.
    PowerButton,
    /// Ctrl-A r: reset.
    Reset,
}

/// Standard input, read by the event loop. On a terminal, Ctrl-A starts a command, because Ctrl-C
/// belongs to the guest.
pub(crate) struct StdioInput {
    port: Arc<SerialPort>,
    keys: Keys,
    escape: Box<dyn Fn(Escape) + Send>,
    ended: bool,
}

impl StdioInput {
    const HELP: &'static [u8] =
        b"\r\nCtrl-A x  stop the machine\r\nCtrl-A p  press the power button\r\nCtrl-A r  reset\r\n\
          Ctrl-A Ctrl-A  send Ctrl-A\r\n";

    /// Returns an input that feeds `port` and calls `escape` for commands.
    pub(crate) fn new(port: Arc<SerialPort>, escape: Box<dyn Fn(Escape) + Send>) -> StdioInput {
        let keys = if RawTerminal::available() { Keys::Plain } else { Keys::Off };
        StdioInput { port, keys, escape, ended: false }
    }

    fn pump(&mut self, ops: &mut EventOps<'_>) {
        if self.ended {
            return;
        }
        let (keys, escape) = (&mut self.keys, &self.escape);
        let pumped = pump(&self.port, libc::STDIN_FILENO, |bytes| {
            bytes.retain(|byte| match keys.take(*byte) {
                Key::Guest => true,
                Key::Nothing => false,
                Key::Help => {
                    // The event loop must not wait for a reader of standard output that has stopped
                    // reading.
                    if is_ready(libc::STDOUT_FILENO, libc::POLLOUT) {
                        let _ = std::io::stdout().write_all(Self::HELP);
                    }
                    false
                }
                Key::Command(command) => {
                    escape(command);
                    false
                }
            });
        });
        if pumped == Pumped::Ended {
            self.ended = true;
            let _ = ops.remove(Events::empty(&std::io::stdin()));
        }
    }
}

impl MutEventSubscriber for StdioInput {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if events.fd() == self.port.drained().as_raw_fd() {
            let _ = self.port.drained().read();
        }
        self.pump(ops);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let stdin = Events::new(&std::io::stdin(), EventSet::IN | EventSet::EDGE_TRIGGERED);
        // A regular file cannot be watched, but is always readable: it is pumped each time the
        // guest has read all input.
        let _ = ops.add(stdin);
        let _ = ops.add(Events::new(self.port.drained(), EventSet::IN));
        self.pump(ops);
    }
}

/// A parser of commands in the stream of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    /// Standard input is no terminal: every byte is for the guest.
    Off,
    Plain,
    /// The last key was Ctrl-A.
    Prefix,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Guest,
    Nothing,
    Help,
    Command(Escape),
}

impl Keys {
    const CTRL_A: u8 = 1;

    fn take(&mut self, byte: u8) -> Key {
        match *self {
            Keys::Off => Key::Guest,
            Keys::Plain if byte == Self::CTRL_A => {
                *self = Keys::Prefix;
                Key::Nothing
            }
            Keys::Plain => Key::Guest,
            Keys::Prefix => {
                *self = Keys::Plain;
                match byte {
                    Self::CTRL_A => Key::Guest,
                    b'x' => Key::Command(Escape::Stop),
                    b'p' => Key::Command(Escape::PowerButton),
                    b'r' => Key::Command(Escape::Reset),
                    _ => Key::Help,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(mut keys: Keys, input: &[u8]) -> Vec<Key> {
        input.iter().map(|byte| keys.take(*byte)).collect()
    }

    #[test]
    fn test_keys_prefix_x_stops_and_double_prefix_passes() {
        assert_eq!(
            run(Keys::Plain, b"a\x01x"),
            [Key::Guest, Key::Nothing, Key::Command(Escape::Stop)]
        );
        assert_eq!(run(Keys::Plain, b"\x01\x01x"), [Key::Nothing, Key::Guest, Key::Guest]);
        assert_eq!(run(Keys::Plain, b"\x01?"), [Key::Nothing, Key::Help]);
    }

    #[test]
    fn test_keys_not_a_terminal_passes_everything() {
        assert_eq!(run(Keys::Off, b"\x01x"), [Key::Guest, Key::Guest]);
    }
}
