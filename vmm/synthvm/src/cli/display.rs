//! `synthvm screenshot`, `send-keys`, `type` and `pointer`.

use std::path::absolute;

use super::args::{PointerArgs, ScreenshotArgs, SendKeysArgs, TypeArgs};
use super::exit::{Exit, Failure};
use crate::control::{Client, Request};
use crate::display::PointerRequest;

pub(super) fn screenshot(args: &ScreenshotArgs) -> Result<Exit, Failure> {
    let path = absolute(&args.path)
        .map_err(|error| Failure::text(Exit::Input, format!("{}: {error}", args.path.display())))?;
    Client::connect(&args.socket)?.request(&Request::Screenshot { path })?;
    Ok(Exit::Success)
}

pub(super) fn send_keys(args: &SendKeysArgs) -> Result<Exit, Failure> {
    let keys = args.keys.join(" ");
    Client::connect(&args.socket)?.request(&Request::SendKeys { keys })?;
    Ok(Exit::Success)
}

pub(super) fn type_text(args: &TypeArgs) -> Result<Exit, Failure> {
    let text = args.text.clone();
    Client::connect(&args.socket)?.request(&Request::TypeText { text })?;
    Ok(Exit::Success)
}

pub(super) fn pointer(args: &PointerArgs) -> Result<Exit, Failure> {
    let pointer =
        PointerRequest { x: args.x, y: args.y, buttons: args.buttons.clone(), wheel: args.wheel };
    Client::connect(&args.socket)?.request(&Request::Pointer { pointer })?;
    Ok(Exit::Success)
}
