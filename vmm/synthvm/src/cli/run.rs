//! `synthvm run`: reports every invalid option before it creates anything.

use synthvm_machine::BootSource;
use synthvm_machine::unix_socket::ListeningSocket;

use super::args::RunArgs;
use super::commands::print;
use super::exit::{Exit, Failure};
use super::launch::{launch, open_disks};
use super::network::open_networks;
use crate::config::VmConfig;
use crate::control::block_stop_signals;
use crate::doctor;

pub(super) fn run(args: &RunArgs) -> Result<Exit, Failure> {
    let config = VmConfig::load(args.file.as_deref(), &args.flags())?;
    if args.print_config {
        print(&config.to_toml().map_err(|error| Failure::text(Exit::Internal, error))?)?;
        return Ok(Exit::Success);
    }
    config.check_inputs()?;
    // The machine repeats this check when it is built. Here the error is reported on any host.
    BootSource::open(&config.kernel, config.initrd.as_deref(), &config.cmdline)?;
    let disks = open_disks(&config)?;
    let networks = open_networks(&config)?;
    // Dropped, and its file removed, if a later step fails.
    let control = config.control.as_deref().map(ListeningSocket::bind).transpose()?;
    doctor::require(&config)?;
    // Must precede the first thread, so that every thread inherits the mask.
    block_stop_signals()
        .map_err(|error| Failure::text(Exit::Internal, format!("cannot block signals: {error}")))?;
    launch(&config, disks, networks, control)
}
