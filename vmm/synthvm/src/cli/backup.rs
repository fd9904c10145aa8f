//! `synthvm freeze` and `thaw`.

use std::path::Path;
use std::process::Command;

use super::args::{FreezeArgs, ThawArgs};
use super::exit::{Exit, Failure};
use super::services::ask;
use crate::control::{Client, Request};
use crate::services::{GuestStatus, ServiceRequest};

pub(super) fn freeze(args: &FreezeArgs) -> Result<Exit, Failure> {
    let FreezeArgs { socket, timeout, command } = args;
    let Some((program, arguments)) = command.split_first() else {
        let request = ServiceRequest::Freeze { seconds: *timeout, hold: false };
        ask::<()>(socket, request)?;
        return Ok(Exit::Success);
    };
    // The guest is thawed when this connection ends, even if this program is killed.
    let mut client = Client::connect(socket)?;
    let freeze = ServiceRequest::Freeze { seconds: *timeout, hold: true };
    client.request(&Request::Service { request: Box::new(freeze) })?;
    let ended = Command::new(program).args(arguments).status();
    let was_frozen = is_frozen(&mut client);
    let thawed = client.request(&Request::Service { request: Box::new(ServiceRequest::Thaw {}) });
    let status = ended.map_err(|error| {
        let message = format!("{}: cannot be started: {error}", Path::new(program).display());
        Failure::text(Exit::Input, message)
    })?;
    if !was_frozen? {
        let message = format!(
            "{}: the guest was thawed before the command ended; use a longer --timeout than \
            {timeout}",
            socket.display()
        );
        return Err(Failure::text(Exit::Guest, message));
    }
    thawed?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(Exit::Internal, Exit::Command))
}

fn is_frozen(client: &mut Client) -> Result<bool, Failure> {
    let request = Request::Service { request: Box::new(ServiceRequest::Status {}) };
    Ok(client.ask::<GuestStatus>(&request)?.frozen)
}

pub(super) fn thaw(args: &ThawArgs) -> Result<Exit, Failure> {
    ask::<()>(&args.socket, ServiceRequest::Thaw {})?;
    Ok(Exit::Success)
}
