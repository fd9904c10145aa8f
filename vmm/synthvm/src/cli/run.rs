//! `synthvm run`: reports every invalid option before it creates anything.

use synthvm_machine::unix_socket::ListeningSocket;
use synthvm_machine::{BootSource, CloudHvSource, FirmwareSource, MachineError, MsvmSource};

use super::args::RunArgs;
use super::commands::print;
use super::console::libraries;
use super::exit::{Exit, Failure};
use super::launch::{Opened, launch, open_disks};
use super::network::open_networks;
use super::tpm::start_tpm;
use super::trace::create_trace;
use crate::config::{DiskConfig, VmConfig};
use crate::control::block_stop_signals;
use crate::display::Vnc;
use crate::doctor;

pub(super) fn run(args: &RunArgs) -> Result<Exit, Failure> {
    let config = VmConfig::load(args.file.as_deref(), &args.flags())?;
    if args.print_config {
        print(&config.to_toml().map_err(|error| Failure::text(Exit::Internal, error))?)?;
        return Ok(Exit::Success);
    }
    config.check_inputs()?;
    // The machine repeats this check when it is built. Here the error is reported on any host.
    check_boot_files(&config)?;
    if config.disks.iter().any(DiskConfig::is_new) {
        // A host that cannot run the machine gets no image of it.
        doctor::require(&config)?;
    }
    let disks = open_disks(&config)?;
    let networks = open_networks(&config)?;
    let tpm = start_tpm(&config)?;
    let vnc = Vnc::open(&config.display).map_err(|error| Failure::new(Exit::Input, &error))?;
    let web = config.display.web.map(|_| libraries(None)).transpose()?;
    let trace = args.trace_bus.as_deref().map(create_trace).transpose()?;
    // Dropped, and its file removed, if a later step fails.
    let control = config.control.as_deref().map(ListeningSocket::bind).transpose()?;
    let vsock = config.vsock.as_ref().map(|vsock| ListeningSocket::bind(&vsock.socket));
    let vsock = vsock.transpose()?;
    doctor::require(&config)?;
    // Must precede the first thread, so that every thread inherits the mask.
    block_stop_signals()
        .map_err(|error| Failure::text(Exit::Internal, format!("cannot block signals: {error}")))?;
    launch(&config, Opened { disks, networks, tpm, vnc, trace, vsock, web }, control)
}

/// Checks the content of the kernel and of the firmware.
fn check_boot_files(config: &VmConfig) -> Result<(), Failure> {
    let machine = config.machine();
    let (kernel, initrd) = (machine.kernel.as_deref(), machine.initrd.as_deref());
    if let Some(msvm) = &machine.msvm {
        MsvmSource::open(msvm).map_err(MachineError::from)?;
    }
    match (&machine.firmware, kernel) {
        (Some(firmware), _) => {
            if CloudHvSource::open(firmware, kernel).map_err(MachineError::from)?.is_none() {
                FirmwareSource::open(firmware, kernel, initrd, &machine.cmdline)
                    .map_err(MachineError::from)?;
            }
        }
        (None, Some(kernel)) => {
            BootSource::open(kernel, initrd, &machine.cmdline)?;
        }
        (None, None) => {}
    }
    Ok(())
}
