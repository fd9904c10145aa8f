//! The network cards of a machine that starts.

use super::exit::{Exit, Failure};
use crate::config::VmConfig;
use crate::networks::{OpenError, OpenNetworks};

/// Opens the networks of all cards.
pub(super) fn open_networks(config: &VmConfig) -> Result<OpenNetworks, Failure> {
    OpenNetworks::open(&config.networks).map_err(|OpenError { card, error }| {
        let exit = if error.is_of_host() { Exit::Host } else { Exit::Input };
        let failure = Failure::new(exit, &error);
        Failure::text(exit, format!("--net {card}: {failure}"))
    })
}
