//! `synthvm console`: the serial console in this terminal, or screen and serial console in a
//! browser.

mod terminal;
mod web;

use super::args::ConsoleArgs;
use super::commands::print;
use super::exit::{Exit, Failure};
use crate::control::{Client, Request};

pub(super) use terminal::DetachKey;
pub(super) use web::{libraries, start_web};

pub(super) fn console(args: &ConsoleArgs) -> Result<Exit, Failure> {
    if args.link {
        let link: String = Client::connect(&args.socket)?.ask(&Request::WebLink {})?;
        print(&format!("{link}\n"))?;
        return Ok(Exit::Success);
    }
    match args.web {
        Some(address) => web::serve(args, address),
        None => terminal::attach(args),
    }
}
