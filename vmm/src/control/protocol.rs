//! What is said over the control socket.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ControlTarget, StopReason};

/// The longest request line, newline included. A longer one is answered with an error and the client is dropped, because where the
/// next request starts is anyone's guess.
pub const MAX_REQUEST_BYTES: usize = 64 << 10;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Answer with null: somebody is there.
    Ping {},
    /// Answer with an [`crate::inspect::InspectReport`].
    Inspect {},
    /// Press the power button.
    PowerButton {},
    /// Start the guest again.
    Reset {},
    /// Stop the machine without asking the guest.
    Stop {},
}

/// The names of all requests, for messages.
const NAMES: &str = "ping, inspect, power-button, reset, stop";

/// What is answered to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether it was done.
    pub ok: bool,
    /// What was asked for; null when there is nothing to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Reply {
    /// It was done.
    pub fn done(value: Value) -> Self {
        Reply { ok: true, value: Some(value), error: None }
    }

    /// It was not done.
    pub fn refused(error: impl Into<String>) -> Self {
        Reply { ok: false, value: None, error: Some(error.into()) }
    }

    /// As a line with its newline.
    pub(super) fn line(&self) -> Vec<u8> {
        let mut line =
            serde_json::to_vec(self).unwrap_or_else(|_| br#"{"ok":false,"error":"unprintable"}"#.to_vec());
        line.push(b'\n');
        line
    }
}

/// Does what `line` asks for.
pub(super) fn answer(line: &[u8], target: &dyn ControlTarget) -> Reply {
    let request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => {
            return Reply::refused(format!(
                "not understood: {error}; write {{\"do\":NAME}} with one of {NAMES}"
            ));
        }
    };
    let done = |result: Result<(), String>| match result {
        Ok(()) => Reply::done(Value::Null),
        Err(error) => Reply::refused(error),
    };
    match request {
        Request::Ping {} => Reply::done(Value::Null),
        Request::Inspect {} => match serde_json::to_value(target.inspect()) {
            Ok(report) => Reply::done(report),
            Err(error) => Reply::refused(format!("cannot write the report: {error}")),
        },
        Request::PowerButton {} => done(target.power_button()),
        Request::Reset {} => done(target.reset()),
        Request::Stop {} => done(target.stop(StopReason::Requested)),
    }
}
