//! The client of a guest's report port.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use guest_report::agent::{Action, Event, Line, Reply, Request};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Timeout of one answer of the guest. It is long because the guest may run in an emulated machine
/// on a busy host.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(180);

/// The reason for a missing answer.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The guest refused the action.
    #[error("the guest could not do {action}: {why}")]
    Refused {
        /// The action.
        action: String,
        /// The guest's message.
        why: String,
    },
    /// No answer arrived in time.
    #[error("the guest did not answer within {} s to {what}", .limit.as_secs())]
    Silent {
        /// The awaited answer.
        what: String,
        /// The timeout.
        limit: Duration,
    },
    /// The report port closed.
    #[error("the report port closed while waiting for {0}")]
    Closed(String),
    /// The answer has an unexpected format.
    #[error("the guest's answer cannot be read: {0}")]
    Nonsense(String),
}

/// A connection to a guest's agent.
#[derive(Debug)]
pub struct Agent {
    stream: UnixStream,
    lines: Receiver<String>,
    events: VecDeque<Event>,
    next_id: u64,
}

impl Agent {
    /// Returns an agent on a connected socket.
    pub fn new(stream: UnixStream) -> std::io::Result<Agent> {
        let reader = BufReader::new(stream.try_clone()?);
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in reader.split(b'\n') {
                let Ok(line) = line else { return };
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        Ok(Agent { stream, lines, events: VecDeque::new(), next_id: 0 })
    }

    /// Sends an action and returns its value.
    pub fn ask<T: DeserializeOwned>(&mut self, action: Action) -> Result<T, AgentError> {
        let name = format!("{action:?}");
        let value = self.ask_value(action)?;
        serde_json::from_value(value).map_err(|e| AgentError::Nonsense(format!("{name}: {e}")))
    }

    /// Sends an action that has no value.
    pub fn tell(&mut self, action: Action) -> Result<(), AgentError> {
        self.ask_value(action).map(|_| ())
    }

    /// Sends an action without waiting. Returns the request's id.
    pub fn send(&mut self, action: Action) -> Result<u64, AgentError> {
        self.next_id += 1;
        let request = Request { id: self.next_id, action };
        let mut line =
            serde_json::to_vec(&request).map_err(|e| AgentError::Nonsense(e.to_string()))?;
        line.push(b'\n');
        self.stream
            .write_all(&line)
            .map_err(|e| AgentError::Closed(format!("{request:?} ({e})")))?;
        Ok(self.next_id)
    }

    /// Returns the next event, including those that arrived before an answer.
    pub fn event(&mut self, limit: Duration) -> Result<Event, AgentError> {
        let end = Instant::now() + limit;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if let Line::Reply(reply) = self.line("an event", end, limit)? {
                return Err(AgentError::Nonsense(format!("no request has the answer {reply:?}")));
            }
        }
    }

    /// Waits for the guest's report that it is up.
    pub fn ready(&mut self, limit: Duration) -> Result<Event, AgentError> {
        loop {
            let event = self.event(limit)?;
            if matches!(event, Event::Ready { .. }) {
                return Ok(event);
            }
        }
    }

    fn ask_value(&mut self, action: Action) -> Result<Value, AgentError> {
        let name = format!("{action:?}");
        let id = self.send(action)?;
        let end = Instant::now() + ANSWER_LIMIT;
        loop {
            match self.line(&name, end, ANSWER_LIMIT)? {
                // `line` has queued the event.
                Line::Event(_) => {}
                Line::Reply(Reply { id: found, ok: true, value, .. }) if found == id => {
                    return Ok(value);
                }
                Line::Reply(reply) if reply.id == id => {
                    return Err(AgentError::Refused {
                        action: name,
                        why: reply.error.unwrap_or_default(),
                    });
                }
                Line::Reply(reply) => {
                    return Err(AgentError::Nonsense(format!(
                        "instead of an answer to {name}: {reply:?}"
                    )));
                }
            }
        }
    }

    /// Returns the next line. Events are also queued.
    fn line(&mut self, what: &str, end: Instant, limit: Duration) -> Result<Line, AgentError> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let text = self.lines.recv_timeout(left).map_err(|e| match e {
                RecvTimeoutError::Timeout => AgentError::Silent { what: what.to_owned(), limit },
                RecvTimeoutError::Disconnected => AgentError::Closed(what.to_owned()),
            })?;
            // Firmware and kernels may write to the port before the guest's init opens it.
            let Some(start) = text.find('{') else { continue };
            let line: Line = serde_json::from_str(text[start..].trim())
                .map_err(|e| AgentError::Nonsense(format!("{text:?}: {e}")))?;
            if let Line::Event(event) = &line {
                self.events.push_back(event.clone());
            }
            return Ok(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Agent, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Agent::new(ours).unwrap(), theirs)
    }

    #[test]
    fn test_ask_keeps_events_that_come_before_the_answer() {
        let (mut agent, mut guest) = pair();
        guest
            .write_all(
                b"noise\n{\"event\":\"ack\",\"records\":3}\n\
                {\"id\":1,\"ok\":true,\"value\":\"pong\"}\n",
            )
            .unwrap();
        assert_eq!(agent.ask::<String>(Action::Ping).unwrap(), "pong");
        assert_eq!(agent.event(ANSWER_LIMIT).unwrap(), Event::Ack { records: 3 });
    }

    #[test]
    fn test_ask_refused_carries_the_guests_words() {
        let (mut agent, mut guest) = pair();
        guest.write_all(b"{\"id\":1,\"ok\":false,\"error\":\"no such disk\"}\n").unwrap();
        let error = agent.tell(Action::Vmbus).unwrap_err().to_string();
        assert!(error.contains("no such disk") && error.contains("Vmbus"), "{error}");
    }

    #[test]
    fn test_ask_of_a_guest_that_goes_away_is_closed_not_silent() {
        let (mut agent, guest) = pair();
        drop(guest);
        assert!(matches!(agent.tell(Action::Ping), Err(AgentError::Closed(_))));
    }

    #[test]
    fn test_event_that_never_comes_is_silent() {
        let (mut agent, _guest) = pair();
        assert!(matches!(agent.event(Duration::from_millis(1)), Err(AgentError::Silent { .. })));
    }
}
