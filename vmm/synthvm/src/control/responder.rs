//! Answers that come later, from another thread, and things that end with their client.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use serde::Serialize;
use serde_json::Value;
use synthvm_services::ServiceError;
use vmm_sys_util::eventfd::EventFd;

use super::protocol::{Cause, Reply};

/// The answer to a request, and what the client holds from then on.
pub(super) struct Answer {
    pub(super) reply: Reply,
    pub(super) hold: Option<Hold>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, hold: None }
    }
}

/// A function that runs when the client that holds it has disconnected: it undoes what nobody but
/// this client would undo. It must not block.
pub struct Hold(Option<Box<dyn FnOnce() + Send>>);

impl Hold {
    /// Returns a hold that runs `end`.
    pub fn new(end: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(end)))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").finish_non_exhaustive()
    }
}

/// Answers one request, from any thread. If it is dropped, the client gets an error.
#[derive(Debug)]
pub struct Responder {
    /// `None` after the answer.
    answer: Option<Sender<Answer>>,
    finished: Arc<EventFd>,
}

impl Responder {
    pub(super) fn new(answer: Sender<Answer>, finished: Arc<EventFd>) -> Self {
        Self { answer: Some(answer), finished }
    }

    /// Answers the request.
    pub fn answer(self, result: Result<impl Serialize, ServiceError>) {
        self.send(result, None);
    }

    /// Answers the request, whose client holds `hold` from then on. If the client has disconnected
    /// already, `hold` ends at once.
    pub fn answer_held(self, value: impl Serialize, hold: Hold) {
        self.send(Ok(value), Some(hold));
    }

    fn send(mut self, result: Result<impl Serialize, ServiceError>, hold: Option<Hold>) {
        let reply = match result.map(serde_json::to_value) {
            Ok(value) => Reply::done(value.unwrap_or(Value::Null)),
            Err(error) => {
                let cause = is_guests(&error).then_some(Cause::Guest);
                Reply { cause, ..Reply::refused(error.to_string()) }
            }
        };
        // The send fails if the client has disconnected; its hold ends with the answer.
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(Answer { reply, hold });
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        // Without an answer, the server sees that the sender is gone.
        drop(self.answer.take());
        let _ = self.finished.write(1);
    }
}

/// Returns whether the guest is at fault, and not the host or the request.
fn is_guests(error: &ServiceError) -> bool {
    match error {
        ServiceError::NotOffered(_)
        | ServiceError::Busy(_)
        | ServiceError::Argument(_)
        | ServiceError::Host(_) => false,
        ServiceError::NoDriver(_)
        | ServiceError::NoDaemon(_)
        | ServiceError::NoCommonVersion(_)
        | ServiceError::TooOld { .. }
        | ServiceError::NoAnswer(_)
        | ServiceError::Unresponsive(_)
        | ServiceError::Refused(_)
        | ServiceError::Invalid(_)
        | ServiceError::Closed(_) => true,
    }
}
