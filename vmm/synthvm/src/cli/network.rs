//! The network cards of a machine that starts, and `synthvm net`: those of a running one.

use synthvm_net::LinkState;

use super::args::{LinkArg, NetArgs};
use super::exit::{Exit, Failure};
use crate::config::VmConfig;
use crate::control::{Client, Request};
use crate::networks::{OpenError, OpenNetworks};

/// Opens the networks of all cards.
pub(super) fn open_networks(config: &VmConfig) -> Result<OpenNetworks, Failure> {
    OpenNetworks::open(&config.networks).map_err(|OpenError { card, error }| {
        let exit = if error.is_of_host() { Exit::Host } else { Exit::Input };
        let failure = Failure::new(exit, &error);
        Failure::text(exit, format!("--net {card}: {failure}"))
    })
}

pub(super) fn net(args: &NetArgs) -> Result<Exit, Failure> {
    let link = match args.link {
        LinkArg::Up => LinkState::Up,
        LinkArg::Down => LinkState::Down,
    };
    Client::connect(&args.socket)?.request(&Request::NetLink { id: args.id.clone(), link })?;
    Ok(Exit::Success)
}
