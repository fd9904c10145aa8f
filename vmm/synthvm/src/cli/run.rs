//! `synthvm run`: everything that can be wrong is found before anything is created.

use synthvm_machine::BootSource;
use synthvm_machine::unix_socket::ListeningSocket;

use super::args::RunArgs;
use super::commands::print;
use super::exit::{Exit, Failure};
use super::launch::{launch, open_disks};
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
    // Again when the machine is built; here so that it is told on any host.
    BootSource::open(&config.kernel, config.initrd.as_deref(), &config.cmdline)?;
    let disks = open_disks(&config)?;
    // Given back if anything below fails.
    let control = config.control.as_deref().map(ListeningSocket::bind).transpose()?;
    doctor::require(&config)?;
    // Before the first thread, so that every thread inherits it.
    block_stop_signals()
        .map_err(|error| Failure::text(Exit::Internal, format!("cannot block signals: {error}")))?;
    launch(&config, disks, control)
}
