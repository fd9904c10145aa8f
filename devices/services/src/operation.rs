//! Requests to the guest: one, or several that belong together.

use std::time::Duration;

use crate::error::ServiceError;
use crate::protocol::{Agreed, Response, ServiceKind};

/// A piece of work that a channel does before the next one: a request, or several in a row. It is
/// called on the services' thread, so it must not block.
pub(crate) trait Operation: Send {
    /// Continues with the response to its last request; `None` at the start, and after
    /// [`Step::Wait`].
    fn next(&mut self, last: Option<Response>, agreed: Agreed) -> Step;

    /// Ends the operation without a response.
    fn fail(self: Box<Self>, error: ServiceError);
}

/// The continuation of an operation.
#[derive(Debug)]
pub(crate) enum Step {
    /// Sends a request, whose response continues the operation.
    Send {
        /// The body.
        body: Vec<u8>,
        /// The time that the guest has.
        timeout: Duration,
    },
    /// Waits until the port is woken.
    Wait,
    /// The operation has ended.
    Done,
}

/// The function that gets the result of an operation.
pub type Done<T> = Box<dyn FnOnce(Result<T, ServiceError>) + Send>;

/// A [`Done`] that is called exactly once: also if the operation is dropped.
pub(crate) struct Completion<T> {
    kind: ServiceKind,
    done: Option<Done<T>>,
}

impl<T> Completion<T> {
    pub(crate) fn new(kind: ServiceKind, done: Done<T>) -> Self {
        Self { kind, done: Some(done) }
    }

    pub(crate) fn call(&mut self, result: Result<T, ServiceError>) {
        if let Some(done) = self.done.take() {
            done(result);
        }
    }
}

impl<T> Drop for Completion<T> {
    fn drop(&mut self) {
        let closed = ServiceError::Closed(self.kind);
        self.call(Err(closed));
    }
}

/// An operation of one request.
pub(crate) struct Single<T, B, R> {
    timeout: Duration,
    /// Makes the body, once.
    body: Option<B>,
    /// Reads the response.
    read: R,
    completion: Completion<T>,
}

impl<T, B, R> Single<T, B, R>
where
    T: Send + 'static,
    B: FnOnce(Agreed) -> Result<Vec<u8>, ServiceError> + Send + 'static,
    R: FnMut(&Response) -> Result<T, ServiceError> + Send + 'static,
{
    /// Returns the operation. `body` is called just before the request is sent.
    pub(crate) fn boxed(
        kind: ServiceKind,
        timeout: Duration,
        body: B,
        read: R,
        done: Done<T>,
    ) -> Box<dyn Operation> {
        Box::new(Self { timeout, body: Some(body), read, completion: Completion::new(kind, done) })
    }
}

impl<T, B, R> Operation for Single<T, B, R>
where
    T: Send,
    B: FnOnce(Agreed) -> Result<Vec<u8>, ServiceError> + Send,
    R: FnMut(&Response) -> Result<T, ServiceError> + Send,
{
    fn next(&mut self, last: Option<Response>, agreed: Agreed) -> Step {
        if let Some(body) = self.body.take() {
            return match body(agreed) {
                Ok(body) => Step::Send { body, timeout: self.timeout },
                Err(error) => {
                    self.completion.call(Err(error));
                    Step::Done
                }
            };
        }
        if let Some(response) = last {
            let result = (self.read)(&response);
            self.completion.call(result);
        }
        Step::Done
    }

    fn fail(mut self: Box<Self>, error: ServiceError) {
        self.completion.call(Err(error));
    }
}

/// Returns an error for a status that is none of success.
pub(crate) fn succeeded(response: &Response) -> Result<(), ServiceError> {
    match response.status {
        crate::protocol::Status::OK => Ok(()),
        status => Err(ServiceError::Refused(status)),
    }
}
