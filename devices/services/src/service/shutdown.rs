//! Orderly shutdown.

use std::time::Duration;

use crate::error::ServiceError;
use crate::operation::{Done, Operation, Single, succeeded};
use crate::protocol::shutdown::{ShutdownMode, request};
use crate::protocol::{Agreed, ServiceKind};

/// The time that the guest has to answer. It answers before it acts.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A request to end the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShutdownRequest {
    /// The action.
    pub mode: ShutdownMode,
    /// The guest does not wait for programs that refuse to end. Linux ignores it.
    pub force: bool,
    /// Seconds that the guest gives its users. Linux ignores it.
    pub seconds: u32,
    /// The reason, which the guest may show and log: at most 1,023 UTF-16 code units.
    pub reason: String,
}

/// Returns the operation of a request.
pub(crate) fn operation(request: ShutdownRequest, done: Done<()>) -> Box<dyn Operation> {
    let body = move |agreed: Agreed| body(&request, agreed);
    Single::boxed(ServiceKind::Shutdown, TIMEOUT, body, succeeded, done)
}

fn body(wanted: &ShutdownRequest, agreed: Agreed) -> Result<Vec<u8>, ServiceError> {
    let ShutdownRequest { mode, force, seconds, reason } = wanted;
    let (spoken, needed) = (agreed.message, mode.since());
    if spoken < needed {
        return Err(ServiceError::TooOld { spoken, needed });
    }
    request(*mode, *force, *seconds, reason)
        .map_err(|error| ServiceError::Argument(format!("the reason cannot be sent: {error}")))
}
