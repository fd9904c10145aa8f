//! The page's buttons, and the state of the machine.
//!
//! Messages of the page are JSON: `{"id":1,"do":"reset"}`; the answer is `{"id":1,"ok":true}`, or
//! `{"id":1,"ok":false,"error":"..."}`. The console sends `{"status":{...}}` when the state of the
//! machine has changed.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tungstenite::{Error, Message, WebSocket};

use crate::connection::is_timeout;
use crate::machine::{Action, Description, Machine};

/// Time between two looks at the machine's state.
const INTERVAL: Duration = Duration::from_secs(1);

/// A message of the page: an action with a number, which the answer repeats.
///
/// The action is read separately: an unknown key inside it is an error, and a flattened structure
/// cannot have that rule.
#[derive(Debug, Deserialize)]
struct Numbered {
    id: u32,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Sent {
    Status {
        status: Description,
    },
    Ended {
        ended: String,
    },
    Answer {
        id: u32,
        ok: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

/// Serves the page's buttons until the browser leaves or the machine ends.
///
/// # Errors
/// The connection failed.
pub(crate) fn run(websocket: WebSocket<&TcpStream>, machine: &dyn Machine) -> io::Result<()> {
    websocket.get_ref().set_read_timeout(Some(INTERVAL))?;
    serve(websocket, machine)
}

/// Serves the page's buttons on a WebSocket whose reads end after a while.
///
/// # Errors
/// The connection failed.
pub fn serve<S: Read + Write>(
    mut websocket: WebSocket<S>,
    machine: &dyn Machine,
) -> io::Result<()> {
    let mut shown: Option<Description> = None;
    loop {
        match machine.describe() {
            Ok(now) if shown.as_ref() != Some(&now) => {
                send(&mut websocket, &Sent::Status { status: now.clone() })?;
                shown = Some(now);
            }
            Ok(_) => {}
            Err(ended) => {
                send(&mut websocket, &Sent::Ended { ended })?;
                let _ = websocket.close(None);
                let _ = websocket.flush();
                return Ok(());
            }
        }
        match websocket.read() {
            Ok(Message::Text(text)) => {
                if let Some(answer) = answer(&text, machine) {
                    send(&mut websocket, &answer)?;
                }
            }
            Ok(_) => {}
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Ok(()),
            Err(Error::Io(error)) if is_timeout(&error) => {}
            Err(Error::Io(error)) => return Err(error),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

fn send<S: Read + Write>(websocket: &mut WebSocket<S>, sent: &Sent) -> io::Result<()> {
    let text = serde_json::to_string(sent)?;
    websocket.send(Message::text(text)).map_err(|error| match error {
        Error::Io(error) => error,
        error => io::Error::other(error),
    })
}

/// Does what a message asks for, and returns the answer. A message without a number has none.
fn answer(text: &str, machine: &dyn Machine) -> Option<Sent> {
    let mut value: serde_json::Value = serde_json::from_str(text).ok()?;
    let Numbered { id } = Numbered::deserialize(&value).ok()?;
    value.as_object_mut()?.remove("id");
    let result = match serde_json::from_value::<Action>(value) {
        Ok(action) => machine.perform(&action),
        Err(error) => Err(format!("not understood: {error}")),
    };
    Some(Sent::Answer { id, ok: result.is_ok(), error: result.err() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<Action>>);

    impl Machine for Recorder {
        fn describe(&self) -> Result<Description, String> {
            Ok(Description::default())
        }

        fn perform(&self, action: &Action) -> Result<(), String> {
            self.0.lock().unwrap().push(action.clone());
            if let Action::Stop {} = action { Err("not now".to_owned()) } else { Ok(()) }
        }

        fn open_screen(&self) -> Result<UnixStream, String> {
            Err("no screen".to_owned())
        }

        fn open_serial(&self) -> Result<UnixStream, String> {
            Err("no port".to_owned())
        }
    }

    fn answered(text: &str, machine: &Recorder) -> String {
        serde_json::to_string(&answer(text, machine).unwrap()).unwrap()
    }

    #[test]
    fn test_answer_performs_the_action_and_repeats_its_number() {
        let machine = Recorder::default();
        assert_eq!(answered(r#"{"id":7,"do":"reset"}"#, &machine), r#"{"id":7,"ok":true}"#);
        assert_eq!(
            answered(r#"{"id":8,"do":"stop"}"#, &machine),
            r#"{"id":8,"ok":false,"error":"not now"}"#
        );
        let keys = r#"{"id":9,"do":"send-keys","keys":"ctrl-alt-del"}"#;
        assert_eq!(answered(keys, &machine), r#"{"id":9,"ok":true}"#);
        let keys = Action::SendKeys { keys: "ctrl-alt-del".to_owned() };
        assert_eq!(*machine.0.lock().unwrap(), [Action::Reset {}, Action::Stop {}, keys]);
    }

    #[test]
    fn test_answer_to_nonsense_is_an_error_or_nothing() {
        let machine = Recorder::default();
        for text in ["", "[]", "{}", r#"{"do":"reset"}"#, r#"{"id":-1,"do":"reset"}"#] {
            assert_eq!(answer(text, &machine), None, "{text}");
        }
        for text in [r#"{"id":1}"#, r#"{"id":1,"do":"reset","now":true}"#, r#"{"id":1,"do":"x"}"#] {
            assert!(answered(text, &machine).contains("not understood"), "{text}");
        }
        assert!(machine.0.lock().unwrap().is_empty());
    }
}
